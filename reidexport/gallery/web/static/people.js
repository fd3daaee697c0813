// Leafing through a gallery: its people, a page at a time, and the images of one of them.

import { cameraName, card, crop, element, fill, moveWithArrows, personName, whoIs } from "./cards.js";
import { get } from "./server.js";

const NUM_PEOPLE = 24, NUM_IMAGES = 48;
const byId = (id) => document.getElementById(id);

// onPick: called with the row of an image; onProblem: with an error. Returns what Esc does here: false for nothing.
export async function leafThroughPeople(onPick, onProblem) {
  let view = { place: null, start: 0, total: 0, step: NUM_PEOPLE };
  let lastStart = 0; // of the people, to come back to
  let wasAsked = 0;

  async function show(place, start, more = {}, focus = false) {
    const step = place === null ? NUM_PEOPLE : NUM_IMAGES;
    const asked = ++wasAsked;
    try {
      const path = place === null ? "people" : `people/${place}`;
      const answer = await get(path, { start, count: step, ...more });
      if (asked !== wasAsked) return;
      view = { place, start: answer.start, total: answer.total, step };
      if (place === null) lastStart = answer.start;
      draw(answer);
      if (focus) byId("leaves").querySelector("button")?.focus();
    } catch (error) {
      onProblem(error);
    }
  }

  function draw(answer) {
    const last = Math.min(view.start + view.step, view.total);
    const isPerson = view.place !== null;
    byId("people-title").textContent = isPerson ? `Images of: ${whoIs(answer.pid)}` : "People";
    byId("all-people").hidden = !isPerson;
    byId("go-to").hidden = isPerson;
    byId("previous").disabled = view.start === 0;
    byId("next").disabled = last >= view.total;
    byId("shown").textContent = view.total ? `${view.start + 1}–${last} of ${view.total}` : "Nobody is here yet.";
    fill(byId("leaves"), isPerson ? answer.images.map(imageCard) : answer.people.map(personCard));
  }

  function personCard(person) {
    const count = person.num_images === 1 ? "1 image" : `${person.num_images} images`;
    const name = personName(person.pid);
    const lines = [element("span", "strong", name), element("span", "soft", count)];
    return card(crop(person.image), lines, `${whoIs(person.pid)}, ${count}`, () => show(person.place, 0, {}, true));
  }

  function imageCard(image) {
    const seen = [cameraName(image.camid), image.time].filter(Boolean);
    const lines = seen.map((text) => element("span", "soft", text));
    return card(crop(image), lines, `Search for this image: ${seen.join(", ")}`, () => onPick(image.row));
  }

  byId("previous").addEventListener("click", () => show(view.place, Math.max(0, view.start - view.step)));
  byId("next").addEventListener("click", () => show(view.place, view.start + view.step));
  byId("all-people").addEventListener("click", () => show(null, lastStart, {}, true));
  byId("go-to").addEventListener("submit", (event) => {
    event.preventDefault();
    show(null, 0, { from_pid: byId("from-pid").value }, true);
  });
  moveWithArrows(byId("leaves"));
  await show(null, 0);
  return () => view.place !== null && (show(null, lastStart, {}, true), true);
}
