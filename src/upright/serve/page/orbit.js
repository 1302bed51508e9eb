// What the models say at other angles: two strips under the slider, and the picture in every pose.

import { near } from "/static/polar.js";
import { drawTurned, plain } from "/static/stage.js";

export const SIDES = ["bare", "adapted"];
export const STEP = 15; // degrees between the cells of a strip
const CELLS = 360 / STEP;
const MOST = 8; // poses shown

export function percent(share) {
  const value = 100 * share;
  if (value > 99.9 && value < 100) return "> 99.9%";
  return `${value >= 99.95 || value < 0.05 ? Math.round(value) : value.toFixed(1)}%`;
}

// At which angles the answer is the one at 0°: high cells where it is, low ones where it is another.
export class Strip {
  constructor(element, side) {
    Object.assign(this, { element, side, known: [] });
    this.clear();
  }

  clear() {
    this.known = Array(CELLS).fill(null);
    this.element.replaceChildren(...this.known.map(() => document.createElement("i")));
    this.describe();
  }

  set(degrees, same) {
    this.known[degrees / STEP] = same;
    this.element.children[degrees / STEP].className = same ? "same" : "other";
    this.describe();
  }

  mark(degrees) {
    [...this.element.children].forEach((cell, i) => {
      cell.classList.toggle("now", near(i * STEP, degrees, STEP / 2 - 0.01));
    });
  }

  describe() {
    const known = this.known.filter((cell) => cell !== null);
    const same = known.filter(Boolean).length;
    this.element.setAttribute("aria-label", `${this.side}: the same answer as at 0° at ${same} of ${known.length} angles`);
  }
}

// Poses of the group, at most eight, evenly chosen.
export function posesOf(info) {
  const all = info.poses ?? [0, 45, 90, 135, 180, 225, 270, 315];
  const flips = info.reflections ? [false, true] : [false];
  const step = Math.ceil(all.length / (MOST / flips.length));
  const chosen = all.filter((_, i) => i % step === 0);
  return flips.flatMap((flip) => chosen.map((degrees) => ({ degrees: Math.round(degrees), flip })));
}

// The picture in every pose, and the likeliest class of both models there.
export class Poses {
  constructor(element, chosen) {
    Object.assign(this, { element, chosen, wishes: [] });
  }

  draw(wishes, bitmap) {
    this.wishes = wishes;
    this.element.replaceChildren(...wishes.map((wish) => this.item(wish, bitmap)));
  }

  item(wish, bitmap) {
    const made = (name, className) => Object.assign(document.createElement(name), { className });
    const [item, button, canvas] = [made("li", ""), made("button", ""), made("canvas", "")];
    canvas.width = canvas.height = 186;
    drawTurned(canvas, bitmap, wish.degrees, wish.flip);
    const name = made("span", "name");
    name.textContent = `${wish.flip ? "flipped, " : ""}${wish.degrees}°`;
    button.type = "button";
    button.setAttribute("aria-label", `Turn it to ${name.textContent}`);
    button.append(canvas);
    button.addEventListener("click", () => this.chosen(wish));
    item.append(button, name, ...SIDES.map((side) => made("span", `said ${side}`)));
    return item;
  }

  say(i, answer, reference) {
    const lines = this.element.children[i].querySelectorAll(".said");
    SIDES.forEach((side, j) => {
      const now = answer[side].top[0];
      if (now) this.write(lines[j], side, now, now.number !== reference[side].top[0]?.number);
    });
  }

  write(line, side, guess, other) {
    const text = document.createElement("span");
    text.textContent = plain(guess.label);
    line.replaceChildren(text);
    line.classList.toggle("other", other);
    line.title = `${side}: ${guess.label}, ${percent(guess.probability)}${other ? ", another answer than at 0°" : ""}`;
    if (!other) return;
    const sign = document.createElement("b");
    sign.textContent = "≠";
    sign.setAttribute("aria-label", "another answer:");
    line.prepend(sign);
  }
}
