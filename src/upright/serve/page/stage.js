// Drawing pictures: turned as the server turns them, mirrored beyond their border, with what was found on them.

const LONGEST = 1024;
const SENT_AS_IT_IS = 400_000;
const KNOWN = ["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"];

// Decode a file that was chosen; returns the bitmap and the file to send, which may be a smaller copy.
export async function decode(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error("this is no picture that the browser can read");
  }
  const { width, height } = bitmap;
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  if (KNOWN.includes(file.type) && file.size <= SENT_AS_IT_IS && scale === 1) return { bitmap, file };
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "#fff"; // as the server lays transparent pictures over white
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const copy = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.92));
  return { bitmap: await createImageBitmap(copy), file: copy };
}

// Draw the centre square of a picture: flipped left-right first, then turned counter-clockwise.
export function drawTurned(canvas, bitmap, degrees, flip) {
  const pen = canvas.getContext("2d");
  const { width, height } = bitmap;
  const scale = canvas.width / Math.min(width, height);
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.imageSmoothingEnabled = scale < 8;
  pen.imageSmoothingQuality = "high";
  pen.translate(canvas.width / 2, canvas.height / 2);
  pen.rotate((-degrees * Math.PI) / 180);
  pen.scale(flip ? -scale : scale, scale);
  for (const i of [-1, 1, 0]) {
    for (const j of [-1, 1, 0]) {
      pen.save();
      pen.translate(i * width, j * height);
      pen.scale(i ? -1 : 1, j ? -1 : 1);
      const more = i || j ? 1 : 0; // mirrored copies reach under the picture, so that no seam shows
      pen.drawImage(bitmap, -width / 2 - more, -height / 2 - more, width + 2 * more, height + 2 * more);
      pen.restore();
    }
  }
  pen.setTransform(1, 0, 0, 1, 0, 0);
}

// Draw masks, boxes and key points over a picture; coordinates are pixels of the answer's picture.
export async function drawFound(canvas, answer, reading) {
  const pen = canvas.getContext("2d");
  const x = canvas.width / answer.width;
  const y = canvas.height / answer.height;
  if (reading.mask) {
    const image = new Image();
    image.src = reading.mask.picture;
    await image.decode();
    const [left, top, right, bottom] = reading.mask.box;
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image, left * x, top * y, (right - left) * x, (bottom - top) * y);
  }
  pen.lineWidth = 4;
  pen.font = "600 20px system-ui, sans-serif";
  pen.textBaseline = "top";
  for (const thing of [...reading.things].reverse()) {
    const [left, top, right, bottom] = thing.box;
    pen.strokeStyle = pen.fillStyle = thing.colour;
    pen.strokeRect(left * x, top * y, (right - left) * x, (bottom - top) * y);
    for (const [px, py] of thing.points) {
      pen.beginPath();
      pen.arc(px * x, py * y, 6, 0, 2 * Math.PI);
      pen.fill();
    }
    const text = `${plain(thing.label)} ${Math.round(100 * thing.score)}%`;
    const width = pen.measureText(text).width + 14;
    const at = Math.max(0, top * y - 28);
    pen.fillRect(left * x - 2, at, width, 28);
    pen.fillStyle = "#fff";
    pen.fillText(text, left * x + 5, at + 5);
  }
}

// Names of classes often list synonyms; the first is enough.
export function plain(label) {
  return label.split(",")[0].replaceAll("_", " ").trim();
}
