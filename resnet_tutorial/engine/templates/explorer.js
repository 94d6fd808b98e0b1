"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id), SIDE = 480, UNDEFINED = 65535;
const TYPES = {i1: Int8Array, u1: Uint8Array, u2: Uint16Array, f4: Float32Array}, unpacked = new Map();
const SCORES = [["pointing_game_evidence", "Pointing game: peak on the evidence"], ["pointing_game_box", "Pointing game: peak in the true box"],
  ["energy_evidence", "Energy on the evidence"], ["energy_mask", "Energy on the object"],
  ["iou_box", "IoU of the map's box and the true box"], ["iou_mask", "IoU of the bright region and the object"]];
const state = {network: 0, image: 0, wanted: "answer", method: "", layer: "", depth: 1, threshold: data.thresholds.indexOf(data.threshold), blend: 10};

// tables: a type, a colon, and the bytes in base64, little-endian
function unpack(text) {
  if (!unpacked.has(text)) {
    const kind = text.slice(0, 2), bytes = Uint8Array.from(atob(text.slice(3)), c => c.charCodeAt(0));
    unpacked.set(text, new TYPES[kind](bytes.buffer));
  }
  return unpacked.get(text);
}

// for each target pixel the two cells between whose centres it lies, and the weight of the second, as
// torch.nn.functional.interpolate(mode="bilinear", align_corners=False) has them
function places(from, to) {
  return Array.from({length: to}, (_, i) => {
    const at = Math.max((i + 0.5) * from / to - 0.5, 0), low = Math.min(Math.floor(at), from - 1);
    return [low, Math.min(low + 1, from - 1), at - low];
  });
}
function upsample(values, height, width, toHeight, toWidth) {
  const columns = places(width, toWidth), out = new Float32Array(toHeight * toWidth);
  places(height, toHeight).forEach(([top, bottom, v], y) => columns.forEach(([left, right, u], x) => {
    const above = values[top * width + left] * (1 - u) + values[top * width + right] * u;
    const below = values[bottom * width + left] * (1 - u) + values[bottom * width + right] * u;
    out[y * toWidth + x] = above * (1 - v) + below * v;
  }));
  return out;
}

// what is shown now
const network = () => data.networks[state.network], gallery = () => data.galleries[network().gallery];
const image = () => gallery().images[state.image], classes = () => network().classes[state.image];
const method = () => network().methods.find(m => m.name === state.method), layers = () => method().layers;
const layer = () => layers().find(l => l.name === state.layer), className = k => network().class_names[k];
function answer(i = state.image) {
  const p = network().probabilities[i], best = p.indexOf(Math.max(...p));
  return {label: network().classes[i][best], p: p[best], right: network().classes[i][best] === gallery().images[i].label};
}
const target = () => state.wanted === "answer" ? answer().label : state.wanted;
const row = (place = classes().indexOf(target())) => state.image * classes().length + place;
function mapOf(l = layer(), at = row()) {
  const size = l.height * l.width, scale = unpack(l.scale)[at];
  return Float32Array.from(unpack(l.maps).subarray(at * size, (at + 1) * size), value => value * scale);
}
function scoreOf(name, l = layer()) {  // NaN: undefined or not known
  if (!(name in l.scores)) return NaN;
  const steps = name.startsWith("iou") ? data.thresholds.length : 1;
  const value = unpack(l.scores[name])[row() * steps + (steps > 1 ? state.threshold : 0)];
  return value === UNDEFINED ? NaN : value / (UNDEFINED - 1);
}
function foundBox(l = layer()) {  // x0, y0, x1, y1 in pixels of the network's image; null: the map has nothing positive
  const at = (row() * data.thresholds.length + state.threshold) * 4, box = [...unpack(l.boxes).slice(at, at + 4)];
  return box[2] > box[0] ? box : null;
}
function limitOf(l = layer()) {
  const size = l.height * l.width, all = $("shared").checked ? classes().map((_, k) => row(k)) : [row()];
  return Math.max(...all.map(at => unpack(l.scale)[at] * Math.max(...unpack(l.maps).subarray(at * size, (at + 1) * size).map(Math.abs))));
}

// words
const number = v => (v === 0 ? "0" : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5 ? v.toExponential(1) : String(+v.toPrecision(3))).replace("-", "\u2212");
const percent = p => p === 0 || p === 1 ? `${100 * p} %` : p > 0.9995 ? "> 99.9 %" : p < 0.0005 ? "< 0.1 %"
  : `${(100 * p).toFixed(p > 0.995 || p < 0.005 ? 1 : 0)} %`;
function scoreText(name, value) {
  if (Number.isNaN(value)) return "undefined";
  if (name.startsWith("pointing")) return value === 1 ? "yes" : value === 0 ? "no" : percent(value);
  return name.startsWith("energy") ? percent(value) : value.toFixed(2);
}
function layerText() {
  const all = layers(), l = layer(), size = `${l.height} \u00d7 ${l.width} values`;
  return all.length === 1 && l.name === "image" ? `the whole image, ${size}` : `${l.name}, ${all.indexOf(l) + 1} of ${all.length}, ${size}`;
}
function sayAll(values) {
  const said = answer(), of = `Image ${state.image + 1} of ${gallery().images.length}, ${className(image().label)}.`;
  const verdict = `Network: ${network().title}. Answer: ${className(said.label)}, ${percent(said.p)} sure, ${said.right ? "right" : "wrong"}.`;
  const low = Math.min(...values), high = Math.max(...values);
  const map = `${method().title} of ${className(target())} at ${layerText()}, from ${number(low)} to ${number(high)}.`;
  const scores = SCORES.filter(([name]) => name in layer().scores).map(([name, title]) =>
    `${title}${name.startsWith("iou") ? ` at threshold ${data.thresholds[state.threshold]}` : ""}: ${scoreText(name, scoreOf(name))}.`);
  return [of, verdict, map, ...scores].join(" ");
}

// drawing
const tables = {signed: unpack(data.colours.signed), heat: unpack(data.colours.heat)}, pictures = new Map(), decoded = new Map();
function colour(table, share, out, at) {
  const k = 3 * Math.min(255, Math.max(0, Math.floor(share * 256)));
  for (let c = 0; c < 3; c++) out[at + c] = tables[table][k + c];
  out[at + 3] = 255;
}
function signedPixels(big, limit, side) {
  const pixels = new ImageData(side, side);
  for (let i = 0; i < big.length; i++) colour("signed", limit > 0 ? (big[i] / limit + 1) / 2 : 0.5, pixels.data, 4 * i);
  return pixels;
}
function truthField(kind) {  // a mask as values from 0 to 1 at the size of the canvas
  const side = gallery().side, bytes = unpack(image()[kind]), bits = new Float32Array(side * side);
  for (let i = 0; i < bits.length; i++) bits[i] = bytes[i >> 3] >> (7 - i % 8) & 1;
  return upsample(bits, side, side, SIDE, SIDE);
}
function addOutline(pixels, field, level, rgb) {  // along field = level: a line of the colour inside, a dark one outside
  const out = pixels.data, inside = Uint8Array.from(field, v => v >= level);
  for (let y = 0; y < SIDE; y++) for (let x = 0; x < SIDE; x++) {
    const i = y * SIDE + x, mine = inside[i], reach = mine ? 3 : 2;
    const edge = (x >= reach && inside[i - reach] !== mine) || (x < SIDE - reach && inside[i + reach] !== mine)
      || (y >= reach && inside[i - reach * SIDE] !== mine) || (y < SIDE - reach && inside[i + reach * SIDE] !== mine);
    if (edge) for (let c = 0; c < 3; c++) out[4 * i + c] = mine ? rgb[c] : out[4 * i + c] * 0.35;
  }
}
function drawBox(context, box, style, dash) {
  const unit = SIDE / gallery().side, at = [box[0] * unit, box[1] * unit, (box[2] - box[0]) * unit, (box[3] - box[1]) * unit];
  for (const [line, width, gaps] of [["rgb(0 0 0 / .55)", 8, []], [style, 4.5, dash]]) {
    context.setLineDash(gaps); context.strokeStyle = line; context.lineWidth = width; context.strokeRect(...at);
  }
  context.setLineDash([]);
}
function show(canvas, pixels, found = null) {  // with the lines that are asked for
  if ($("show-mask").checked && image().mask) addOutline(pixels, truthField("mask"), 0.5, [255, 255, 255]);
  if ($("show-evidence").checked && image().evidence) addOutline(pixels, truthField("evidence"), 0.5, [255, 217, 47]);
  const context = canvas.getContext("2d");
  context.putImageData(pixels, 0, 0);
  if ($("show-box").checked && image().box) drawBox(context, image().box, "#fff", [12, 8]);
  if ($("show-found").checked && found) drawBox(context, found, "#f0402f", []);
}
function picture() {  // the pixels of the image at the size of the canvas
  const uri = image().uri;
  if (!pictures.has(uri)) {
    const context = Object.assign(document.createElement("canvas"), {width: SIDE, height: SIDE}).getContext("2d", {willReadFrequently: true});
    context.imageSmoothingQuality = "high";
    context.drawImage(decoded.get(uri), 0, 0, SIDE, SIDE);
    pictures.set(uri, context.getImageData(0, 0, SIDE, SIDE));
  }
  return pictures.get(uri);
}
function overlayPixels(big, top) {
  const pixels = new ImageData(SIDE, SIDE), plain = picture().data, weight = state.blend / 20, tint = new Uint8ClampedArray(4);
  for (let i = 0; i < big.length; i++) {
    colour("heat", top > 0 ? big[i] / top : 0, tint, 0);
    for (let c = 0; c < 3; c++) pixels.data[4 * i + c] = weight * tint[c] + (1 - weight) * plain[4 * i + c];
    pixels.data[4 * i + 3] = 255;
  }
  return pixels;
}
function panel(name, caption, alt) {
  const figure = $(`panel-${name}`), canvas = figure.querySelector("canvas");
  figure.querySelector("figcaption").textContent = caption;
  canvas.setAttribute("aria-label", alt);
  return canvas;
}
function drawPanels(values) {
  const l = layer(), limit = limitOf(), name = className(target()), level = data.thresholds[state.threshold], where = layerText();
  const map = panel("map", `Signed map: what speaks for ${name} (red) and against it (blue)`, `${method().title} of ${name} at ${where}, in red and blue`);
  const big = upsample(values, l.height, l.width, SIDE, SIDE), top = big.reduce((a, b) => Math.max(a, b), 0);
  show(map, signedPixels(big, limit, SIDE));
  const over = panel("overlay", top > 0 ? `Overlay: the positive part, and a box round its largest region above ${level} of the maximum`
    : "Overlay: nothing in this map is positive", `The positive part of the map over the image${top > 0 ? `, with a box at ${level} of the maximum` : ""}`);
  show(over, overlayPixels(big, top), foundBox());
  const plain = panel("image", `Image: ${className(image().label)}. The network sees it in ${gallery().side} \u00d7 ${gallery().side} pixels`,
    `Image ${state.image + 1}: ${className(image().label)}`);
  show(plain, new ImageData(new Uint8ClampedArray(picture().data), SIDE));
  const ends = document.querySelectorAll("#panel-map .bar span");
  ends[0].textContent = number(-limit); ends[2].textContent = `+${number(limit)}`;
  const heat = document.querySelector("#panel-overlay .bar");
  heat.querySelector("span:last-child").textContent = number(top);
  heat.querySelector("i").style.setProperty("--at", `calc(${100 * level}% - 1px)`);
}
function drawStrip() {
  layers().forEach((l, k) => {
    const canvas = $("strip").children[k], side = canvas.width, big = upsample(mapOf(l), l.height, l.width, side, side);
    canvas.getContext("2d").putImageData(signedPixels(big, limitOf(l), side), 0, 0);
    canvas.classList.toggle("now", l === layer());
  });
}

// tables
const SVG = "http://www.w3.org/2000/svg";
function element(tag, attributes = {}, ...children) {
  const made = ["svg", "rect", "line"].includes(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}
function columnsOf(name) {  // a bar for each layer
  const all = layers(), step = 100 / Math.max(all.length, 4), svg = element("svg", {viewBox: "0 0 100 30", preserveAspectRatio: "none", "aria-hidden": "true"});
  svg.append(element("line", {x1: 0, x2: step * all.length, y1: 29.5, y2: 29.5}));
  all.forEach((l, k) => {
    const value = scoreOf(name, l), height = Number.isNaN(value) ? 0 : Math.max(1, 28 * value);
    svg.append(element("rect", {x: step * (k + 0.12), width: step * 0.76, y: 29 - height, height, class: l === layer() ? "now" : ""}));
  });
  return svg;
}
function fillTables() {
  const p = network().probabilities[state.image], said = answer().label;
  $("answers").tBodies[0].replaceChildren(...classes().map((k, i) => {
    const mark = [k === image().label ? "true" : "", k === said ? "answer" : ""].filter(Boolean).join(", ");
    const meter = element("span", {class: "meter"}, element("i", {style: `width: ${100 * p[i]}%`}));
    return element("tr", {}, element("th", {scope: "row"}, className(k) + (mark ? ` (${mark})` : ""), meter), element("td", {class: "value"}, percent(p[i])));
  }));
  const known = SCORES.filter(([name]) => name in layer().scores);
  $("scores").hidden = !known.length;
  $("scores").tBodies[0].replaceChildren(...known.map(([name, title]) => element("tr", {}, element("th", {scope: "row"}, title),
    element("td", {class: "value"}, scoreText(name, scoreOf(name))), element("td", {class: "across"}, columnsOf(name)))));
}

// controls
function radios(id, options, chosen, pick) {  // options: [value, label, children of the label's span]
  const rows = options.map(([value, label, children]) => {
    const input = element("input", {type: "radio", name: id, value, "aria-label": label});
    input.checked = value === chosen;
    input.addEventListener("change", () => pick(value));
    return element("label", {}, input, element("span", {}, ...children));
  });
  document.querySelector(`#${id} div`).replaceChildren(...rows);
}
function makeNetworks() {
  radios("networks", data.networks.map((n, k) => [k, n.title, [n.title]]), state.network, k => { state.network = k; makeImages(); refresh(); });
}
function makeImages() {
  state.image = Math.min(state.image, gallery().images.length - 1);
  radios("images", gallery().images.map((one, i) => {
    const said = answer(i), words = `image ${i + 1}: ${className(one.label)}; the network says ${className(said.label)}, ${said.right ? "right" : "wrong"}`;
    return [i, words, [element("img", {src: one.uri, alt: ""}), element("b", {class: said.right ? "right" : "wrong"}, `${said.right ? "\u2713" : "\u2717"} ${className(said.label)}`)]];
  }), state.image, i => { state.image = i; refresh(); });
  $("note").textContent = network().note;
  $("method").replaceChildren(...network().methods.map(m => element("option", {value: m.name}, m.title)));
  const has = kind => gallery().images.some(one => one[kind]);
  for (const kind of ["evidence", "mask", "box"]) $(`show-${kind}`).parentElement.hidden = !has(kind);
}
function makeClasses() {
  if (state.wanted !== "answer" && !classes().includes(state.wanted)) state.wanted = "answer";
  const options = [["answer", "the network's answer", ["the answer"]], ...classes().map(k => [k, className(k), [className(k)]])];
  const made = JSON.stringify(options);
  if ($("classes").dataset.made !== made) radios("classes", options, state.wanted, k => { state.wanted = k; refresh(); });
  $("classes").dataset.made = made;
  document.querySelector(`#classes input[value="${state.wanted}"]`).checked = true;
}
function settle() {  // the method and layer of the network that come nearest to what was chosen
  if (!method()) state.method = network().methods[0].name;
  if (!layer()) state.layer = layers()[Math.round(state.depth * (layers().length - 1))].name;
  else if (layers().length > 1) state.depth = layers().indexOf(layer()) / (layers().length - 1);
}
function showControls() {
  makeClasses();
  $("method").value = state.method;
  $("classless").textContent = method().classless ? `${method().title} knows no class: its map is the same for all.` : "";
  Object.assign($("layer"), {max: layers().length - 1, value: layers().indexOf(layer()), disabled: layers().length < 2});
  $("layer").setAttribute("aria-valuetext", layerText());
  $("layer-name").textContent = layer().name === "image" ? "the whole image" : layer().name;
  if ($("strip").children.length !== layers().length) $("strip").replaceChildren(...layers().map((l, k) => {
    const canvas = element("canvas", {width: 48, height: 48});
    canvas.addEventListener("click", () => { state.layer = layers()[k].name; refresh(); });
    return canvas;
  }));
  $("strip").hidden = layers().length < 2;
  $("threshold").value = state.threshold; $("blend").value = state.blend;
  $("threshold-name").textContent = `${data.thresholds[state.threshold]} of the maximum`;
  $("threshold").setAttribute("aria-valuetext", $("threshold-name").textContent);
  $("blend-name").textContent = percent(state.blend / 20);
  $("blend").setAttribute("aria-valuetext", $("blend-name").textContent);
}
function refresh() {
  settle(); showControls();
  const values = mapOf();
  drawPanels(values); drawStrip(); fillTables();
  $("said").textContent = sayAll(values);
  writeAddress();
}

// the choice is part of the address, so that a link can open a view
let written = "";
function writeAddress() {
  written = "#" + new URLSearchParams({network: state.network, image: state.image, class: state.wanted, method: state.method,
    layer: state.layer, threshold: data.thresholds[state.threshold]});
  if (location.hash !== written && location.protocol !== "about:") location.replace(written);
}
function readAddress() {
  const asked = new URLSearchParams(location.hash.slice(1)), whole = (key, count) => {
    const value = Number(asked.get(key) ?? NaN);
    return Number.isInteger(value) && value >= 0 && value < count ? value : 0;
  };
  state.network = whole("network", data.networks.length);
  state.image = whole("image", gallery().images.length);
  state.wanted = asked.has("class") && asked.get("class") !== "answer" ? Number(asked.get("class")) : "answer";
  state.method = asked.get("method") ?? ""; state.layer = asked.get("layer") ?? "";
  const level = data.thresholds.indexOf(Number(asked.get("threshold") ?? NaN));
  if (level >= 0) state.threshold = level;
}
async function start() {
  document.title = data.title; $("title").textContent = data.title; $("lead").textContent = data.lead; $("made").textContent = data.made;
  const gradient = table => `linear-gradient(90deg, ${Array.from({length: 33}, (_, i) => `rgb(${tables[table].slice(3 * Math.min(255, 8 * i)).slice(0, 3).join(" ")})`)})`;
  document.querySelector("#panel-map .bar i").style.background = gradient("signed");
  document.querySelector("#panel-overlay .bar i").style.background = gradient("heat");
  $("threshold").max = data.thresholds.length - 1;
  $("choices").addEventListener("submit", event => event.preventDefault());
  $("method").addEventListener("change", event => { state.method = event.target.value; refresh(); });
  $("layer").addEventListener("input", event => { state.layer = layers()[event.target.value].name; refresh(); });
  for (const key of ["threshold", "blend"]) $(key).addEventListener("input", event => { state[key] = Number(event.target.value); refresh(); });
  for (const box of document.querySelectorAll("#marks input")) box.addEventListener("change", refresh);
  window.addEventListener("hashchange", () => { if (location.hash !== written) open(); });
  await decodeAll();
  open();
  document.documentElement.dataset.ready = "yes";
}
function open() {
  readAddress(); makeNetworks(); makeImages(); refresh();
}
async function decodeAll() {  // a data URI is decoded later than it is set, and a canvas would stay empty
  await Promise.all(data.galleries.flatMap(one => one.images).map(async ({uri}) => {
    decoded.set(uri, Object.assign(new Image(), {src: uri}));
    await decoded.get(uri).decode();
  }));
}
window.explorer = {state, data, upsample, mapOf, scoreOf, foundBox, limitOf, refresh, answer};
start();
