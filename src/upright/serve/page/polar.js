// A posterior over poses as a polar plot: where the top of the picture points, up being 0°, counter-clockwise.

const NAMESPACE = "http://www.w3.org/2000/svg";
const RADIUS = 88;

function place(parent, name, attributes, text) {
  const made = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function point(degrees, radius) {
  const angle = (degrees * Math.PI) / 180;
  return [-radius * Math.sin(angle), -radius * Math.cos(angle)];
}

function sector(degrees, half, radius) {
  if (half >= 179.9) return `M 0 ${-radius} A ${radius} ${radius} 0 1 0 0.01 ${-radius} Z`;
  const [x0, y0] = point(degrees - half, radius);
  const [x1, y1] = point(degrees + half, radius);
  return `M 0 0 L ${x0} ${y0} A ${radius} ${radius} 0 ${half > 90 ? 1 : 0} 0 ${x1} ${y1} Z`;
}

// Draw some poses; areas are proportional to their probability, the likeliest touching the ring at 100%.
export function drawPolar(svg, shares, { chosen, asked, continuous }) {
  svg.replaceChildren();
  for (const share of [0.25, 1]) place(svg, "circle", { class: "ring", r: RADIUS * Math.sqrt(share) });
  for (const degrees of [0, 45, 90, 135]) {
    const [x, y] = point(degrees, RADIUS);
    place(svg, "line", { class: "axis", x1: x, y1: y, x2: -x, y2: -y });
  }
  for (const degrees of [0, 90, 180, 270]) {
    const [x, y] = point(degrees, RADIUS + 17);
    place(svg, "text", { x, y }, `${degrees}°`);
  }
  const top = continuous ? Math.max(...shares.map((s) => s.probability), 1e-9) : 1;
  const half = Math.min(178, (180 / Math.max(1, shares.length)) * (continuous ? 1 : 0.86));
  for (const share of shares) {
    const radius = RADIUS * Math.sqrt(share.probability / top);
    if (radius < 0.6) continue;
    const best = chosen !== null && near(share.degrees, chosen, continuous ? half : 1e-3);
    place(svg, "path", { class: best ? "wedge best" : "wedge", d: sector(share.degrees, half, radius) });
  }
  if (asked !== null) {
    const [x, y] = point(asked, RADIUS);
    place(svg, "circle", { class: "asked", cx: x, cy: y, r: 4.5 });
  }
}

export function near(a, b, within) {
  const gap = Math.abs((((a - b) % 360) + 360) % 360);
  return Math.min(gap, 360 - gap) <= within;
}
