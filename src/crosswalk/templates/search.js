"use strict";
const get = (id) => document.getElementById(id);
const form = get("search"), sentence = get("sentence"), file = get("picture"), results = get("results"), hits = get("hits");
const maxBytes = Number(form.dataset.maxBytes);
let picture = null;          // the file to search by
let asked = null;            // what was asked last: {sentence} or {picture} or {similar, name}
const before = [];           // what was asked before "more like this"
let running = null;          // AbortController of the search under way

function element(tag, text, kind) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function show(id, text) {
  get(id).textContent = text;
  get(id).hidden = !text;
}

// Filters

const moment = (name) => {
  const day = get(name)?.value, time = get(`${name}-time`)?.value;
  return day ? (time ? `${day} ${time}` : day) : "";
};

function filters() {
  const told = new URLSearchParams({k: get("k").value});
  for (const box of form.querySelectorAll("[name=camera]:checked")) told.append("camera", box.value);
  for (const name of ["since", "until"]) if (moment(name)) told.set(name, moment(name));
  if (get("where").value.trim()) told.set("where", get("where").value);
  for (const name of ["group", "rerank"]) if (get(name).checked) told.set(name, "true");
  return told;
}

function tellFilters() {
  const names = new Set(filters().keys());
  names.delete("k");
  get("active").textContent = names.size ? `(in use: ${[...names].map((name) => name === "where" ? "other columns" : name).join(", ")})` : "";
}

// Searching

async function problemOf(response) {
  try {
    const {detail} = await response.json();
    return asSentence(detail);
  } catch {
    return response.status === 503 ? "Too many searches at once: try again in a moment." : `The server answered ${response.status}.`;
  }
}

async function search(query) {
  running?.abort();
  const mine = running = new AbortController();
  asked = query;
  const told = filters();
  let address = "/api/search", options = {signal: mine.signal};
  if (query.similar) {
    address = `/api/similar/${query.similar}?${told}`;
  } else {
    const body = new FormData();
    for (const [name, value] of told) body.append(name, value);
    if (query.picture) body.append("picture", query.picture, "picture");
    else body.append("sentence", query.sentence);
    options = {...options, method: "POST", body};
  }
  results.classList.add("busy");
  results.setAttribute("aria-busy", "true");
  show("problem", "");
  get("status").textContent = "Searching …";
  try {
    const response = await fetch(address, options);
    if (!response.ok) throw new Error(await problemOf(response));
    const answer = await response.json();
    if (mine.signal.aborted) return;
    tell(answer);
  } catch (error) {
    if (mine.signal.aborted) return;
    get("status").textContent = "";
    hits.replaceChildren();
    show("note", "");
    show("problem", error instanceof TypeError ? "The server does not answer: is `crosswalk serve` still running?" : error.message);
  }
  get("back").hidden = !before.length;
  results.classList.remove("busy");
  results.setAttribute("aria-busy", "false");
}

function nameOf(query) {
  if (query.sentence) return `“${query.sentence}”`;
  return query.similar ? query.name : "the picture";
}

function tell(answer) {
  const number = answer.hits.length, what = nameOf(asked);
  get("found").textContent = asked.sentence ? `Found for ${what}` : `Looks like ${what}`;
  get("status").textContent = number
    ? `${number} ${number === 1 ? "picture" : "pictures"}, most similar first.`
    : "Nothing was found: no picture is of what the filters say.";
  show("note", [answer.note, asked.similar ? "" : chanceOf(answer.hits)].filter(Boolean).map(asSentence).join(" "));
  hits.replaceChildren(...answer.hits.map(tile));
}

const asSentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}${text.endsWith(".") ? "" : "."}`;

function chanceOf(found) {
  const chances = found.map((hit) => hit.probability).filter((chance) => chance !== null);
  return chances.length ? `at even odds, the best score says ${Math.round(100 * Math.max(...chances))} % that the person is here` : "";
}

function tile(hit, place) {
  const made = get("hit").content.cloneNode(true);
  const button = made.querySelector(".picture"), image = made.querySelector("img"), told = made.querySelector(".told");
  const time = hit.time?.replace("T", " ").replace(/(:\d\d):00$/, "$1");
  const lines = [hit.own_id, hit.camera === null ? null : `camera ${hit.camera}`, time, hit.count > 1 ? `${hit.count} alike` : null];
  image.alt = [`Hit ${place + 1}`, hit.name, ...lines.filter(Boolean)].join(", ");
  image.src = `/api/pictures/${hit.id}?size=small`;
  image.addEventListener("error", () => image.replaceWith(element("span", "This picture cannot be shown: its file is gone, or no picture any more.", "problem")));
  button.addEventListener("click", () => enlarge(hit));
  button.title = "Enlarge";
  told.append(element("span", `${place + 1}. score ${hit.score.toFixed(3)}`, "score"), ...lines.filter(Boolean).map((line) => element("bdi", line)), element("bdi", hit.name, "quiet"));
  told.lastChild.title = [hit.path ?? hit.name, ...Object.entries(hit.columns).map(([name, value]) => `${name}: ${value}`)].join("\n");
  const more = made.querySelector(".similar");
  more.setAttribute("aria-label", `More like hit ${place + 1}, ${hit.name}`);
  more.addEventListener("click", async () => {
    before.push(asked);
    await search({similar: hit.id, name: hit.own_id ?? hit.name});
    get("found").focus();
  });
  return made;
}

function enlarge(hit) {
  get("viewed").textContent = hit.path ?? hit.name;
  get("whole").alt = hit.name;
  get("whole").src = `/api/pictures/${hit.id}?size=large`;
  get("viewer").showModal();
}

// What is asked

function choose(chosen) {
  const preview = get("preview");
  URL.revokeObjectURL(preview.src);
  picture = chosen;
  preview.hidden = get("forget").hidden = !picture;
  if (!picture) {
    preview.removeAttribute("src");
    file.value = "";
    return;
  }
  preview.src = URL.createObjectURL(picture);
  if (sentence) sentence.value = "";
  ask();
}

function ask() {
  const words = sentence?.value.trim();
  if (!form.reportValidity()) return;
  before.length = 0;
  if (picture && picture.size > maxBytes) show("problem", `The picture is too large: at most ${maxBytes / 1e6} MB are read.`);
  else if (picture) search({picture});
  else if (words) search({sentence: words});
  else show("problem", sentence ? "Say what is to be seen, or choose a picture." : "Choose a picture.");
}

form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
sentence?.addEventListener("input", () => { if (picture && sentence.value) choose(null); });
file.addEventListener("change", () => { if (file.files.length) choose(file.files[0]); });
get("forget").addEventListener("click", () => { choose(null); (sentence ?? file).focus(); });
get("filters").addEventListener("change", () => {
  tellFilters();
  if (asked && form.reportValidity()) search(asked);
});
get("back").addEventListener("click", () => { search(before.pop()); get("found").focus(); });
get("close").addEventListener("click", () => get("viewer").close());
get("viewer").addEventListener("close", () => get("whole").removeAttribute("src"));

const dragged = (event) => [...event.dataTransfer.types].includes("Files");
addEventListener("dragover", (event) => { if (dragged(event)) { event.preventDefault(); get("drop").classList.add("over"); } });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) get("drop").classList.remove("over"); });
addEventListener("drop", (event) => {
  get("drop").classList.remove("over");
  if (!event.dataTransfer.files.length) return;
  event.preventDefault();
  choose(event.dataTransfer.files[0]);
});
addEventListener("paste", (event) => {
  const pasted = [...event.clipboardData.files].find((each) => each.type.startsWith("image/"));
  if (pasted) { event.preventDefault(); choose(pasted); }
});

// Arrow keys go from picture to picture

hits.addEventListener("keydown", (event) => {
  const tiles = [...hits.children], place = tiles.findIndex((each) => each.contains(document.activeElement));
  const columns = tiles.filter((each) => each.offsetTop === tiles[0].offsetTop).length;
  const steps = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -place, End: tiles.length - 1 - place};
  const next = tiles[place + steps[event.key]];
  if (!next) return;
  event.preventDefault();
  next.querySelector(document.activeElement.className === "similar" ? ".similar" : ".picture").focus();
});
