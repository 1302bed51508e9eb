import { Asker, example, info } from "/static/api.js";
import { decode, drawFound, drawTurned, plain } from "/static/stage.js";
import { drawPolar } from "/static/polar.js";
import { Poses, SIDES, STEP, Strip, percent, posesOf } from "/static/orbit.js";

const at = (id) => document.getElementById(id);

const state = {
  info: null,
  bitmap: null,
  degrees: 0,
  flip: false,
  reference: null, // the answer at 0°, unflipped
  tour: null,
  survey: null,
  loading: 0,
  dragging: false,
};

const asker = new Asker({
  answered: (wish, answer) => show(wish, answer),
  failed: (error) => complain(error.message),
  waiting: (on) => document.body.classList.toggle("waiting", on),
});

const strips = Object.fromEntries(SIDES.map((side) => [side, new Strip(at(`cells-${side}`), side)]));
const poses = new Poses(at("poses"), (wish) => { stopTour(); turnTo(wish.degrees, wish.flip, 0); });

// ---- the picture

async function take(load) {
  stopTour();
  const turn = ++state.loading;
  try {
    const { bitmap, file } = await decode(await load());
    if (turn !== state.loading) return; // another one was chosen meanwhile
    complain("");
    state.bitmap?.close();
    state.bitmap = bitmap;
    state.reference = null;
    asker.take(file);
    state.survey?.abort();
    for (const side of SIDES) strips[side].clear();
    at("every").hidden = state.info.task !== "classification";
    if (!at("every").hidden) poses.draw(posesOf(state.info), bitmap);
    turnTo(0, false, 0);
  } catch (error) {
    if (turn === state.loading) complain(error.message);
  }
}

function takeFile(file) {
  if (!file) return;
  mark(null);
  take(async () => file);
}

function takeExample(name) {
  mark(name);
  take(() => example(name));
}

function mark(name) {
  for (const button of at("examples").children) {
    button.setAttribute("aria-pressed", String(button.dataset.name === name));
  }
}

function complain(message) {
  at("error").textContent = message && message[0].toUpperCase() + message.slice(1) + ".";
  at("error").hidden = !message;
}

// ---- turning it

function turnTo(degrees, flip = state.flip, pause = 40) {
  state.degrees = ((degrees % 360) + 360) % 360;
  state.flip = flip;
  const slider = at("degrees");
  if (Number(slider.value) % 360 !== state.degrees) slider.value = state.degrees;
  slider.setAttribute("aria-valuetext", `${state.degrees} degrees counter-clockwise`);
  at("angle").textContent = `${state.degrees}°`;
  at("flip").setAttribute("aria-pressed", String(state.flip));
  for (const side of SIDES) strips[side].mark(state.degrees);
  if (!state.bitmap) return;
  drawTurned(at("stage"), state.bitmap, state.degrees, state.flip);
  at("stage").setAttribute("aria-label", `The picture, turned by ${state.degrees} degrees${state.flip ? ", flipped" : ""}`);
  asker.wish({ degrees: state.degrees, flip: state.flip }, pause);
}

// Poses of the group attract the slider while it is dragged; keys reach every degree.
function snapped(degrees) {
  if (!state.dragging) return degrees;
  for (const pose of [...(state.info?.poses ?? [0, 90, 180, 270]), 360]) {
    if (Math.abs(degrees - pose) <= 2) return pose;
  }
  return degrees;
}

function stopTour() {
  state.tour?.abort();
  state.tour = null;
  at("round").textContent = "Turn it round";
}

async function startTour() {
  if (!state.bitmap) return;
  const control = new AbortController();
  state.tour = control;
  at("round").textContent = "Stop";
  const start = state.degrees - (state.degrees % STEP);
  try {
    for (let i = 0; i <= 360 / STEP; i++) {
      const degrees = (start + i * STEP) % 360;
      turnTo(degrees, state.flip, 1e9); // shown at once; asked for here
      const wish = { degrees, flip: state.flip };
      const answer = await asker.ask(wish, control.signal);
      if (control.signal.aborted) return;
      show(wish, answer);
    }
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  } finally {
    if (state.tour === control) stopTour();
  }
}

// ---- the answers

function show(wish, answer) {
  complain("");
  if (wish.degrees === 0 && !wish.flip && !state.reference) {
    state.reference = answer;
    survey();
  }
  for (const side of SIDES) showReading(side, answer, answer[side], wish);
  showPose(wish, answer.pose);
  const canonical = at("canonical");
  canonical.src = answer.canonical;
  canonical.alt = "The picture as the model is shown it";
  canonical.hidden = false;
  remember(wish, answer);
  speak(wish, answer);
}

function showReading(side, answer, reading, wish) {
  const passes = reading.passes === 1 ? "1 pass" : `${reading.passes} passes`;
  at(`${side}-cost`).textContent = `${passes} · ${Math.round(reading.milliseconds)} ms`;
  const dense = state.info.task !== "classification";
  at(`${side}-drawn`).hidden = !dense;
  if (!reading.valid) {
    at(`${side}-first`).textContent = "No numbers came out";
    at(`${side}-bars`).replaceChildren();
    return;
  }
  if (dense) showFound(side, answer, reading, wish);
  else showClasses(side, reading);
}

function showClasses(side, reading) {
  at(`${side}-first`).textContent = plain(reading.top[0].label);
  showRows(side, reading.top.map((g) => ({ label: plain(g.label), title: g.label, share: g.probability })));
}

function showFound(side, answer, reading, wish) {
  const canvas = at(`${side}-drawn`);
  drawTurned(canvas, state.bitmap, wish.degrees, wish.flip);
  drawFound(canvas, answer, reading);
  const things = reading.things.map((t) => ({ label: plain(t.label), share: t.score, colour: t.colour }));
  const regions = (reading.mask?.regions ?? []).map((r) => ({ label: plain(r.label), share: r.share, colour: r.colour }));
  const rows = things.length ? things : regions;
  const words = things.length ? (things.length === 1 ? "thing" : "things") : "region" + (regions.length === 1 ? "" : "s");
  at(`${side}-first`).textContent = rows.length ? `${rows.length} ${words}` : "Nothing found";
  canvas.setAttribute("aria-label", rows.map((r) => `${r.label} ${percent(r.share)}`).join(", ") || "Nothing found");
  showRows(side, rows.slice(0, 5));
}

function showRows(side, rows) {
  const list = at(`${side}-bars`);
  while (list.children.length > rows.length) list.lastChild.remove();
  while (list.children.length < rows.length) {
    const row = document.createElement("li");
    row.innerHTML = '<span class="label"></span><span class="value"></span><span class="bar"><i></i></span>';
    list.append(row);
  }
  rows.forEach((row, i) => {
    const [label, value, bar] = list.children[i].children;
    label.textContent = row.label;
    label.title = row.title ?? row.label;
    value.textContent = percent(row.share);
    bar.firstChild.style.width = `${100 * row.share}%`;
    if (row.colour) {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = row.colour;
      label.prepend(swatch);
    }
  });
}

function degreesText(degrees) {
  return `${Number(degrees.toFixed(Number.isInteger(degrees) ? 0 : 1))}°`;
}

function showPose(wish, pose) {
  const how = `${pose.reflected ? "mirrored, " : ""}${degreesText(pose.degrees)}`;
  at("pose-angle").textContent = how;
  at("pose-sure").textContent = pose.tied
    ? "another pose is just as likely"
    : `${percent(pose.confidence)} ${pose.continuous ? "of the probability lies there" : "sure"}`;
  at("pose-note").textContent = note(wish, pose);
  const mirror = state.info.reflections;
  at("mirror-figure").hidden = !mirror;
  const options = { continuous: pose.continuous };
  const chosen = (reflected) => (pose.reflected === reflected ? pose.degrees : null);
  const asked = (flip) => (wish.flip === flip || !mirror ? wish.degrees : null);
  const shares = (reflected) => pose.posterior.filter((s) => s.reflected === reflected);
  drawPolar(at("polar"), shares(false), { ...options, chosen: chosen(false), asked: asked(false) });
  if (mirror) drawPolar(at("polar-mirror"), shares(true), { ...options, chosen: chosen(true), asked: asked(true) });
}

function note(wish, pose) {
  if (pose.gated) return "Its pose is not clear, so it is left as it is.";
  if (pose.flagged) return "This pose is doubtful.";
  const group = state.info.group;
  const start = state.reference?.pose;
  if (!start || pose.reflected !== (wish.flip !== start.reflected)) return "";
  const expected = wish.degrees + (wish.flip ? -1 : 1) * start.degrees;
  const gap = Math.abs(((expected - pose.degrees + 900) % 360) - 180);
  if (gap < 0.5) return wish.degrees || wish.flip ? "That is how you turned it: it is turned back before the model looks." : "";
  if (state.info.poses && gap <= 180 / state.info.poses.length + 0.01) {
    return `${group} has no ${degreesText(wish.degrees)}: a tilt of ${degreesText(gap)} stays.`;
  }
  return `You turned it by ${degreesText(wish.degrees)}.`;
}

// ---- other angles

function remember(wish, answer) {
  if (state.info.task !== "classification" || wish.flip || wish.degrees % STEP || !state.reference) return;
  for (const side of SIDES) {
    strips[side].set(wish.degrees, answer[side].top[0]?.number === state.reference[side].top[0]?.number);
    strips[side].mark(state.degrees);
  }
}

// Ask for the picture in every pose of the group, while nothing else is asked for.
async function survey() {
  const control = new AbortController();
  state.survey = control;
  if (at("every").hidden) return;
  try {
    for (const [i, wish] of poses.wishes.entries()) {
      const given = wish.degrees === 0 && !wish.flip;
      const answer = given ? state.reference : await asker.ask(wish, control.signal);
      if (control.signal.aborted) return;
      remember(wish, answer);
      poses.say(i, answer, state.reference);
    }
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  }
}

let speaking = 0;
function speak(wish, answer) {
  clearTimeout(speaking);
  speaking = setTimeout(() => {
    const said = (side) => `${side} says ${at(`${side}-first`).textContent}`;
    at("spoken").textContent =
      `At ${wish.degrees} degrees: ${said("bare")}; ${said("adapted")}; ` +
      `pose ${at("pose-angle").textContent}, ${at("pose-sure").textContent}.`;
  }, 700);
}

// ---- the page

function drawTicks() {
  const poses = state.info.poses;
  const marks = poses && poses.length <= 24 ? [...poses, 360] : [0, 45, 90, 135, 180, 225, 270, 315, 360];
  at("ticks").replaceChildren(...marks.map((degrees) => {
    const tick = document.createElement("span");
    tick.style.left = `${degrees / 3.6}%`;
    if (degrees % 90 === 0) tick.textContent = `${degrees}°`;
    else tick.className = "small";
    return tick;
  }));
}

function drawExamples() {
  at("examples").replaceChildren(...state.info.examples.map(({ name, title }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.name = name;
    button.setAttribute("aria-pressed", "false");
    const image = document.createElement("img");
    image.src = `/api/examples/${encodeURIComponent(name)}`;
    image.alt = title;
    button.title = title;
    button.append(image);
    button.addEventListener("click", () => takeExample(name));
    return button;
  }));
}

const WORDS = { C4: "quarter turns", D4: "quarter turns and flips", SO2: "turns by any angle", O2: "turns by any angle and flips" };

function groupWords(group) {
  if (WORDS[group]) return WORDS[group];
  const order = Number(group.slice(1));
  if (!Number.isFinite(order)) return group;
  return `turns by ${degreesText(360 / order)}${group[0] === "D" ? " and flips" : ""}`;
}

function listen() {
  at("degrees").addEventListener("input", (event) => {
    stopTour();
    const value = Number(event.target.value);
    turnTo(snapped(value));
  });
  at("degrees").addEventListener("pointerdown", () => (state.dragging = true));
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => (state.dragging = false));
  at("left").addEventListener("click", () => { stopTour(); turnTo(state.degrees + 90); });
  at("right").addEventListener("click", () => { stopTour(); turnTo(state.degrees - 90); });
  at("flip").addEventListener("click", () => { stopTour(); turnTo(state.degrees, !state.flip); });
  at("round").addEventListener("click", () => (state.tour ? stopTour() : startTour()));
  at("file").addEventListener("change", (event) => {
    takeFile(event.target.files[0]);
    event.target.value = ""; // the same file can be chosen again
  });
  let inside = 0;
  const files = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragenter", (event) => {
    if (files(event)) document.body.classList.toggle("dragging", ++inside > 0);
  });
  addEventListener("dragleave", (event) => {
    if (files(event)) document.body.classList.toggle("dragging", --inside > 0);
  });
  addEventListener("dragover", (event) => { if (files(event)) event.preventDefault(); });
  addEventListener("drop", (event) => {
    inside = 0;
    document.body.classList.remove("dragging");
    if (!files(event)) return;
    event.preventDefault();
    takeFile(event.dataTransfer.files[0]);
  });
  addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((f) => f.type.startsWith("image/"));
    if (file) takeFile(file);
  });
}

async function start() {
  try {
    state.info = await info();
  } catch (error) {
    complain(error.message);
    return;
  }
  at("chip-model").textContent = state.info.model;
  at("chip-group").textContent = state.info.group;
  at("group-text").textContent = groupWords(state.info.group);
  at("version").textContent = `upright ${state.info.version}.`;
  at("flip").hidden = !state.info.reflections;
  at("strips").hidden = state.info.task !== "classification";
  drawTicks();
  drawExamples();
  listen();
  if (state.info.examples.length) takeExample(state.info.examples[0].name);
}

start();
