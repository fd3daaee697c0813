// The page: what is asked for, what was found, and what the threshold keeps of it.

import { cameraName, card, crop, element, fill, moveWithArrows, personName, whoIs } from "./cards.js";
import { leafThroughPeople } from "./people.js";
import { uploadProblem } from "./uploads.js";
import { get, post } from "./server.js";

const byId = (id) => document.getElementById(id);
const uploads = []; // images that were dropped or chosen; they stay in this page
let facts; // about the gallery
let query = null; // { row } or { upload: its index in uploads }
let answer = null;
let searching = new AbortController();

function showProblem(problem) {
  byId("problem").firstElementChild.textContent = problem?.message ?? "";
  byId("problem").hidden = !problem;
}

// --- searching

function parameters() {
  const asked = new URLSearchParams({ k: byId("num-matches").value });
  if ("row" in query) asked.set("row", query.row);
  else asked.set("name", uploads[query.upload].file.name.slice(-255));
  for (const box of document.querySelectorAll("#cameras input:checked")) asked.append("camids", box.value);
  if (byId("other-cameras").checked) asked.set("other_cameras", true);
  return asked;
}

const body = () => ("row" in query ? null : uploads[query.upload].file);

// Returns whether there is an answer now.
async function search(focus = false) {
  searching.abort();
  if (query === null || !byId("num-matches").checkValidity()) return false;
  const own = (searching = new AbortController());
  byId("hits").setAttribute("aria-busy", "true");
  try {
    answer = await (await post("search", parameters(), body(), own.signal)).json();
    showProblem(null);
    drawAnswer();
    if (focus) {
      byId("found-title").scrollIntoView();
      (byId("hits").querySelector("button") ?? byId("file")).focus({ preventScroll: true });
    }
    return true;
  } catch (error) {
    if (error.name !== "AbortError") showProblem(error);
    return false;
  } finally {
    if (own === searching) byId("hits").removeAttribute("aria-busy");
  }
}

// A new query is a step of the browser's history, so that Esc and its Back button return to the one before.
async function ask(newQuery) {
  const before = query;
  query = newQuery;
  if (await search(true)) history.pushState({ query, depth: (history.state?.depth ?? 0) + 1 }, "");
  else if (query === newQuery) query = before;
}

async function askFor(file) {
  if (!facts.takes_uploads) return showProblem(new Error(byId("no-artifact").textContent));
  const refusal = await uploadProblem(file, facts.max_upload_mib);
  if (refusal) return showProblem(refusal);
  uploads.push({ file, url: URL.createObjectURL(file) });
  await ask({ upload: uploads.length - 1 });
}

// Back to the query of this step of the history; uploads from before a reload are gone.
function restore(focus) {
  query = history.state?.query ?? null;
  if (query && ("row" in query || uploads[query.upload])) return search(focus);
  searching.abort();
  query = answer = null;
  byId("hits").replaceChildren();
  byId("asked").hidden = true;
  byId("found").textContent = "Choose a person below to see who is nearest.";
  drawKept();
}

// --- showing

function drawAnswer() {
  const { query: asked, hits, ms } = answer;
  const shown = "row" in query ? crop(asked) : element("img", "crop");
  if ("upload" in query) shown.src = uploads[query.upload].url;
  const name = asked.path.split("/").at(-1);
  const seen = [whoIs(asked.pid), cameraName(asked.camid), asked.time];
  byId("asked").firstElementChild.replaceWith(shown);
  byId("asked").querySelector("figcaption").textContent = [name, ...seen].filter(Boolean).join(", ");
  byId("asked").hidden = false;
  const isCameraKnown = asked.camid !== null;
  byId("other-cameras").disabled = !facts.all_cameras_known || !isCameraKnown;
  noteAboutCameras(isCameraKnown ? "" : "The query’s camera is not known, so it cannot be compared with other cameras only.");
  const among = `${facts.num_images.toLocaleString("en")} images, ${ms < 1 ? "under 1" : Math.round(ms)} ms`;
  byId("found").textContent = hits.length ? `${hits.length} nearest of ${among}` : `Nothing of ${among}: no image passes the filter.`;
  fill(byId("hits"), hits.map(hitCard));
  const farthest = hits.at(-1)?.distance ?? 0;
  const step = 10 ** Math.floor(Math.log10(Math.max(farthest, 1e-3)) - 1);
  Object.assign(byId("slider"), { max: (Math.ceil(farthest / step) * step).toPrecision(4), step: step / 10 });
  drawKept();
}

function hitCard(hit) {
  const mark = hit.is_same_person === null ? "" : hit.is_same_person ? "✓ " : "✗ ";
  const whose = hit.is_same_person === null ? "" : hit.is_same_person ? "the same person, " : "another person, ";
  const seen = `${personName(hit.pid)}, ${cameraName(hit.camid)}`;
  const distance = hit.distance.toFixed(4);
  const lines = [element("span", "", `${mark}${distance}`), element("span", "soft", seen)];
  if (hit.time) lines.push(element("span", "soft", hit.time));
  const description = `Rank ${hit.rank}, distance ${distance}, ${whose}${seen}${hit.time ? `, ${hit.time}` : ""}`;
  const item = card(crop(hit), lines, description, () => ask({ row: hit.row }));
  item.firstElementChild.title = hit.path;
  if (mark) item.firstElementChild.classList.add(hit.is_same_person ? "good" : "bad");
  return item;
}

function drawKept() {
  const hits = answer?.hits ?? [];
  const text = byId("threshold").value;
  const threshold = text === "" ? Infinity : Number(text);
  const kept = hits.filter((hit) => hit.distance <= threshold);
  [...byId("hits").querySelectorAll("button")].forEach((button, i) => {
    button.classList.toggle("beyond", hits[i].distance > threshold);
  });
  for (const id of ["slider", "kept", "sheet"]) byId(id).hidden = hits.length === 0;
  byId("slider").value = text === "" ? byId("slider").max : threshold;
  byId("kept").textContent = keptInWords(kept, hits, text !== "");
  const numDrawn = Math.min(kept.length, facts.max_sheet_matches);
  byId("sheet").disabled = numDrawn === 0;
  byId("sheet").textContent = `Contact sheet of ${numDrawn === kept.length ? numDrawn : `the nearest ${numDrawn}`}`;
}

function keptInWords(kept, hits, isLimited) {
  const same = kept.filter((hit) => hit.is_same_person === true).length;
  const others = kept.filter((hit) => hit.is_same_person === false).length;
  const parts = [`Keeps ${kept.length} of ${hits.length}`];
  if (same + others) parts.push(`: ${same} of the same person, ${others} of others`);
  parts.push(".");
  if (isLimited && kept.length === hits.length && hits.length >= Number(byId("num-matches").value)) {
    parts.push(" More may be as near: raise Matches.");
  }
  return parts.join("");
}

function noteAboutCameras(text) {
  const note = facts.all_cameras_known ? text : "Some images’ cameras are not known, so there is no filter by camera.";
  byId("cameras-note").textContent = note;
  byId("cameras-note").hidden = !note;
}

async function saveSheet() {
  const asked = parameters();
  if (byId("threshold").value !== "") asked.set("threshold", byId("threshold").value);
  byId("sheet").disabled = true;
  try {
    const url = URL.createObjectURL(await (await post("sheet", asked, body())).blob());
    Object.assign(document.createElement("a"), { href: url, download: "matches.png" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    showProblem(null);
  } catch (error) {
    showProblem(error);
  } finally {
    drawKept();
  }
}

// --- beginning

function drawFacts() {
  document.title = byId("name").textContent = facts.name;
  const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
  byId("facts").textContent = [
    count(facts.num_images, "image", "images"), count(facts.num_people, "person", "people"),
    count(facts.cameras.length, "camera", "cameras"), `${facts.metric} distance`,
  ].join(", ");
  byId("drop").hidden = !facts.takes_uploads;
  byId("no-artifact").hidden = facts.takes_uploads;
  Object.assign(byId("num-matches"), { value: facts.num_matches, max: facts.max_matches });
  byId("cameras").hidden = !facts.all_cameras_known;
  byId("other-cameras").disabled = !facts.all_cameras_known;
  noteAboutCameras("");
  byId("cameras").querySelector("legend").textContent = "Cameras: all, or those ticked";
  for (const { camid, num_images } of facts.cameras) {
    const box = Object.assign(document.createElement("input"), { type: "checkbox", value: camid });
    const label = element("label", "");
    label.append(box, `${camid + 1}`);
    box.setAttribute("aria-label", cameraName(camid));
    label.title = count(num_images, "image", "images");
    byId("cameras").append(label);
  }
}

function listen(leavePerson) {
  moveWithArrows(byId("hits"));
  byId("dismiss").addEventListener("click", () => showProblem(null));
  byId("asking").addEventListener("submit", (event) => event.preventDefault());
  byId("file").addEventListener("change", () => {
    const [file] = byId("file").files;
    if (file) askFor(file);
    byId("file").value = "";
  });
  for (const id of ["cameras", "other-cameras", "num-matches"]) byId(id).addEventListener("change", () => search());
  byId("threshold").addEventListener("input", drawKept);
  byId("slider").addEventListener("input", () => {
    byId("threshold").value = byId("slider").value;
    drawKept();
  });
  byId("sheet").addEventListener("click", saveSheet);
  addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [file] = event.dataTransfer.files;
    if (file) askFor(file);
  });
  addEventListener("popstate", () => restore(true));
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (!byId("problem").hidden) showProblem(null);
    else if (byId("people").contains(document.activeElement) && leavePerson()) return;
    else if (history.state?.depth) history.back();
  });
}

async function begin() {
  history.replaceState(history.state, "", location.pathname); // the token is in a cookie by now
  try {
    facts = await get("gallery");
    drawFacts();
    listen(await leafThroughPeople((row) => ask({ row }), showProblem));
    restore(false);
  } catch (error) {
    showProblem(error);
  }
}

begin();
