// Images as buttons in a list, among which the arrow keys move: one Tab stop for a list.

export const personName = (pid) =>
  pid === null ? "not known" : pid === 0 ? "distractor" : pid < 0 ? "junk" : String(pid).padStart(4, "0");

export const whoIs = (pid) => (pid === null || pid > 0 ? `person ${personName(pid)}` : personName(pid));

// Cameras count from 1 in names, from 0 in data.
export const cameraName = (camid) => (camid === null ? "camera not known" : `camera ${camid + 1}`);

export function crop(image) {
  const missing = element("span", "crop missing", image.path ? "file not found" : "no file");
  if (!image.has_file) return missing;
  const shown = element("img", "crop");
  Object.assign(shown, { src: `images/${image.row}`, alt: "", loading: "lazy", decoding: "async", draggable: false });
  shown.addEventListener("error", () => {
    missing.textContent = "cannot be read";
    shown.replaceWith(missing);
  });
  return shown;
}

// lines: what is written under the image; description: the same for those who do not see it.
export function card(shown, lines, description, onPick) {
  const button = element("button", "card");
  button.type = "button";
  button.tabIndex = -1;
  button.setAttribute("aria-label", description);
  button.append(shown, ...lines);
  button.addEventListener("click", onPick);
  const item = document.createElement("li");
  item.append(button);
  return item;
}

export function element(name, classes, text = "") {
  const made = document.createElement(name);
  made.className = classes;
  made.textContent = text;
  return made;
}

export function fill(list, items) {
  list.replaceChildren(...items);
  const first = list.querySelector("button");
  if (first) first.tabIndex = 0;
}

export function moveWithArrows(list) {
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")];
    const current = buttons.indexOf(document.activeElement);
    const places = {
      ArrowLeft: current - 1, ArrowRight: current + 1, ArrowUp: current - columns(buttons), ArrowDown: current + columns(buttons),
      Home: 0, End: buttons.length - 1,
    };
    if (current < 0 || !(event.key in places)) return;
    event.preventDefault();
    buttons[places[event.key]]?.focus();
  });
  list.addEventListener("focusin", (event) => {
    for (const button of list.querySelectorAll("button")) button.tabIndex = button === event.target ? 0 : -1;
  });
}

function columns(buttons) {
  const next = buttons.findIndex((button) => button.offsetTop > buttons[0].offsetTop);
  return next < 0 ? buttons.length : next;
}
