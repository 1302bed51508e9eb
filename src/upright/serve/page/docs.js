// The description of the endpoint, drawn from /openapi.json.

const at = (id) => document.getElementById(id);

function made(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

function table(heads, rows) {
  const head = made("tr", {}, ...heads.map((h) => made("th", { scope: "col", textContent: h })));
  const body = rows.map((row) => made("tr", {}, ...row.map((cell) => made("td", {}, cell))));
  return made("div", { className: "scroll" }, made("table", {}, made("thead", {}, head), made("tbody", {}, ...body)));
}

const code = (text) => made("code", { textContent: text });

function resolve(schema, all) {
  return schema.$ref ? all[schema.$ref.split("/").at(-1)] : schema;
}

function type(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.anyOf) return schema.anyOf.map(type).join(" or ");
  if (schema.type === "array") return schema.items ? `${type(schema.items)}[]` : `${(schema.prefixItems ?? []).map(type).join(", ")}`;
  return schema.type ?? "any";
}

function range(schema) {
  const [low, high] = [schema.minimum, schema.maximum];
  return low === undefined ? "" : ` (${low}…${high})`;
}

function model(name, all) {
  const schema = all[name];
  const rows = Object.entries(schema.properties).map(([field, of]) => [code(field), type(of), of.description ?? ""]);
  return made("details", {}, made("summary", { textContent: name }), made("p", { textContent: schema.description ?? "" }), table(["field", "type", ""], rows));
}

function reached(name, all, found = []) {
  if (found.includes(name)) return found;
  found.push(name);
  for (const match of JSON.stringify(all[name]).matchAll(/"#\/components\/schemas\/(\w+)"/g)) reached(match[1], all, found);
  return found;
}

function operation(path, method, of, all) {
  const card = made("section", { className: "card" });
  card.append(
    made("h2", {}, made("span", { className: "method", textContent: method.toUpperCase() }), code(path)),
    made("p", { textContent: of.description ?? of.summary }),
  );
  if (of.requestBody) card.append(made("h3", { textContent: "Body" }), made("p", { textContent: of.requestBody.description }));
  if (of.parameters?.length) {
    const rows = of.parameters.map((p) => [code(p.name), type(p.schema) + range(p.schema), String(p.schema.default ?? ""), p.description ?? p.schema.description ?? ""]);
    card.append(made("h3", { textContent: "Parameters" }), table(["name", "type", "default", ""], rows));
  }
  const rows = Object.entries(of.responses)
    .filter(([status, r]) => !(status === "422" && r.description === "Validation Error"))
    .map(([status, r]) => [code(status), r.description]);
  card.append(made("h3", { textContent: "Answers" }), table(["status", ""], rows));
  const schema = of.responses["200"]?.content?.["application/json"]?.schema;
  if (schema?.$ref) card.append(...reached(type(schema), all).map((name) => model(name, all)));
  return card;
}

const [openapi, info] = await Promise.all(["/openapi.json", "/api/info"].map(async (url) => (await fetch(url)).json()));
const all = openapi.components.schemas;
at("shell").textContent = `curl --data-binary @photo.jpg '${location.origin}/api/predict?degrees=90'
curl -F picture=@photo.jpg ${location.origin}/api/predict`;
at("python").textContent = `import httpx

photo = open("photo.jpg", "rb").read()
answer = httpx.post("${location.origin}/api/predict", content=photo).json()
print(answer["adapted"]["top"][0], answer["pose"]["degrees"], answer["pose"]["confidence"])`;
const { max_bytes, max_pixels, max_seconds, workers, queue } = info.limits;
at("limits").textContent =
  `Limits: ${+(max_bytes / 2 ** 20).toFixed(1)} MiB and ${+(max_pixels / 1e6).toFixed(1)} megapixels a picture (${info.formats.join(", ")}), ` +
  `${max_seconds} s an answer, ${workers} at once and ${queue} waiting; beyond that 503, with Retry-After.`;
for (const [path, methods] of Object.entries(openapi.paths)) {
  for (const [method, of] of Object.entries(methods)) at("operations").append(operation(path, method, of, all));
}
