"use strict";
// Meshes to turn, drawn with WebGL; everything that is shown stands in #data. `?picture=0&hand=1&t=3` opens a state.
const pictures = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const report = document.documentElement.dataset; // what a test reads: webgl, triangles, covered, step, error
window.addEventListener("error", (event) => { report.error = event.message; });

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const params = new URLSearchParams(location.search);
const number = (name, count) => Math.max(0, Math.min(count - 1, Number.parseInt(params.get(name) ?? "0", 10) || 0));
const state = { picture: number("picture", pictures.length), hand: 0, show: "mesh", hypothesis: 0, step: 0, yaw: 0, pitch: 0, zoom: 1 };
const hands = () => pictures[state.picture].hands;
const chosen = () => hands()[state.hand];

// ---- meshes: vertices (camera axes, meters) and smooth normals, decoded once
function mesh(record, faces) {
  if (record.positions) return record;
  const units = new Int16Array(bytes(record.vertices).buffer);
  record.positions = Float32Array.from(units, (u, i) => u * 1e-5 + record.middle[i % 3]);
  record.normals = new Float32Array(units.length);
  const [p, n] = [record.positions, record.normals];
  for (let f = 0; f < faces.length; f += 3) {
    const [a, b, c] = [3 * faces[f], 3 * faces[f + 1], 3 * faces[f + 2]];
    const u = [0, 1, 2].map((k) => p[b + k] - p[a + k]), v = [0, 1, 2].map((k) => p[c + k] - p[a + k]);
    const cross = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) n[corner + k] += cross[k] * 1e6;
  }
  return record;
}

function shownMesh(hand) {
  hand.triangles ??= new Uint16Array(bytes(hand.faces).buffer);
  let record = hand.mesh;
  if (hand === chosen() && state.show === "hypotheses") record = hand.hypotheses[state.hypothesis].mesh;
  if (hand === chosen() && state.show === "steps") record = hand.steps[state.step].mesh;
  return mesh(record, hand.triangles);
}

function colorsOf(hand) {
  const name = byId("color").value in hand.colors ? byId("color").value : "plain";
  hand.decoded ??= {};
  return (hand.decoded[name] ??= bytes(hand.colors[name]));
}

// ---- WebGL
const VERTEX = `attribute vec3 position, normal, color; uniform mat3 turn; uniform vec3 center; uniform vec4 view;
varying vec3 n, rgb;
void main() { // view: distance to the center, zoom in x and y, radius of the scene; the eye circles around the center
  vec3 p = turn * (position - center); float w = p.z + view.x, near = max(view.x - 2.0 * view.w, 0.02 * view.x), far = view.x + 2.0 * view.w;
  gl_Position = vec4(view.y * p.x, -view.z * p.y, ((far + near) * w - 2.0 * far * near) / (far - near), w);
  n = turn * normal; rgb = color; }`;
const FRAGMENT = `precision mediump float; varying vec3 n, rgb;
void main() { vec3 m = normalize(n); if (m.z > 0.0) m = -m; // the open wrist shows the inside
  float light = 0.38 + 0.42 * max(0.0, -m.z) + 0.30 * max(0.0, dot(m, normalize(vec3(-0.45, -0.75, -0.5))));
  gl_FragColor = vec4(rgb * min(light, 1.1), 1.0); }`;
let gl = null, program = null;

function start() {
  gl = byId("scene").getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
  report.webgl = gl ? "yes" : "no";
  if (!gl) return false;
  program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text); gl.compileShader(shader);
    if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program); gl.useProgram(program); gl.enable(gl.DEPTH_TEST);
  return true;
}

const buffers = {};
function attribute(name, values, type, normalized) {
  buffers[name] ??= gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
  const place = gl.getAttribLocation(program, name);
  gl.enableVertexAttribArray(place);
  gl.vertexAttribPointer(place, 3, type, normalized, 0, 0);
}

const drawn = () => (byId("alone").checked ? [chosen()] : hands());

// Middle and radius of the predicted hands, and how far they reach across the line of sight: the same for hypotheses and
// steps, so that nothing jumps.
function extent() {
  const low = [1e9, 1e9, 1e9], high = [-1e9, -1e9, -1e9];
  for (const hand of drawn()) {
    hand.triangles ??= new Uint16Array(bytes(hand.faces).buffer);
    mesh(hand.mesh, hand.triangles).positions.forEach((x, i) => { low[i % 3] = Math.min(low[i % 3], x); high[i % 3] = Math.max(high[i % 3], x); });
  }
  const center = low.map((x, k) => (x + high[k]) / 2), radius = Math.max(0.01, Math.hypot(...low.map((x, k) => high[k] - x)) / 2);
  const distance = Math.max(Math.hypot(...center), 2.2 * radius), turn = turned(center, 0, 0);
  let across = 0.01;
  for (const hand of drawn()) {
    const p = hand.mesh.positions;
    for (let i = 0; i < p.length; i += 3) {
      const [x, y, z] = [0, 1, 2].map((row) => [0, 1, 2].reduce((sum, k) => sum + turn[3 * k + row] * (p[i + k] - center[k]), 0));
      across = Math.max(across, (Math.hypot(x, y) * distance) / (z + distance));
    }
  }
  return { center, radius, distance, across };
}

// The rotation, column by column: the line of sight to the center first becomes the z axis, then the user's turn.
function turned(center, yaw, pitch) {
  const unit = (v) => v.map((x) => x / (Math.hypot(...v) || 1));
  const z = unit(center[2] > 0 ? center : [0, 0, 1]), x = unit([z[2], 0, -z[0]]);
  const y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]];
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const turn = [[cy, 0, sy], [sp * sy, cp, -sp * cy], [-cp * sy, sp, cp * cy]];
  return [0, 1, 2].flatMap((column) => turn.map((row) => row[0] * x[column] + row[1] * y[column] + row[2] * z[column]));
}

function draw() {
  const canvas = byId("scene"), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, canvas.clientWidth * ratio); canvas.height = Math.max(1, canvas.clientHeight * ratio);
  gl.viewport(0, 0, canvas.width, canvas.height); gl.clearColor(0, 0, 0, 0); gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  const { center, radius, distance, across } = extent();
  gl.uniformMatrix3fv(gl.getUniformLocation(program, "turn"), false, turned(center, state.yaw, state.pitch));
  gl.uniform3fv(gl.getUniformLocation(program, "center"), center);
  const shorter = Math.min(canvas.width, canvas.height), zoom = (0.95 * state.zoom * distance) / across;
  gl.uniform4f(gl.getUniformLocation(program, "view"), distance, (zoom * shorter) / canvas.width, (zoom * shorter) / canvas.height, radius);
  let triangles = 0;
  for (const hand of drawn()) {
    const record = shownMesh(hand);
    attribute("position", record.positions, gl.FLOAT, false);
    attribute("normal", record.normals, gl.FLOAT, false);
    attribute("color", colorsOf(hand), gl.UNSIGNED_BYTE, true);
    buffers.faces ??= gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, buffers.faces);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, hand.triangles, gl.DYNAMIC_DRAW);
    gl.drawElements(gl.TRIANGLES, hand.triangles.length, gl.UNSIGNED_SHORT, 0);
    triangles += hand.triangles.length / 3;
  }
  report.triangles = triangles;
  byId("status").textContent = `${drawn().length} ${drawn().length === 1 ? "hand" : "hands"}, ${triangles} triangles, in the camera's axes. Drag to turn, wheel or pinch to zoom.`;
}

function countCovered() { // for the test: the share of the canvas that meshes cover
  const pixels = new Uint8Array(4 * gl.drawingBufferWidth * gl.drawingBufferHeight);
  gl.readPixels(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  let covered = 0;
  for (let i = 3; i < pixels.length; i += 4) covered += pixels[i] > 0;
  report.covered = ((4 * covered) / pixels.length).toFixed(4);
  if (gl.getError() !== gl.NO_ERROR) report.error = "WebGL reports an error";
}

// ---- the panel
function buttons(place, entries, isPressed, press) {
  place.replaceChildren(...entries.map(([value, text]) => {
    const button = document.createElement("button");
    button.type = "button"; button.textContent = text; button.setAttribute("aria-pressed", String(isPressed(value)));
    button.addEventListener("click", () => { press(value); update(); });
    return button;
  }));
}

function table(place, head, rows) {
  const line = (cells, kind) => { const row = document.createElement("tr"); row.append(...cells.map((c) => { const cell = document.createElement(kind); cell.append(c); return cell; })); return row; };
  place.replaceChildren(line(head, "th"), ...rows.map((row) => line(row, "td")));
}

function tokenCells(step) {
  byId("tokens").replaceChildren(...step.fixed.map((fixed, k) => {
    const cell = document.createElement("span");
    cell.title = fixed ? `token ${k}: code ${step.codes[k]}, probability ${step.confidence[k]}` : `token ${k}: masked`;
    if (fixed) { cell.textContent = step.codes[k]; cell.style.background = `hsl(212 60% ${68 - 40 * step.confidence[k]}%)`; }
    return cell;
  }));
}

function update() {
  const hand = chosen();
  const shows = [["mesh", "prediction"], ["hypotheses", "hypotheses"], ["steps", "tokens filled in"]].filter(([name]) => hand[name].length !== 0);
  if (!shows.some(([name]) => name === state.show)) state.show = "mesh";
  buttons(byId("hands"), hands().map((h, k) => [k, h.name]), (k) => k === state.hand, (k) => { state.hand = k; state.hypothesis = 0; });
  buttons(byId("shows"), shows, (name) => name === state.show, (name) => { state.show = name; });
  byId("facts").textContent = hand.facts.join(", ");
  table(byId("joints"), ["joint", "error mm", "within 10 mm"], hand.joints.map((j) => [j.name, j.error, `${j.within} %`]));
  byId("alone").parentElement.hidden = hands().length === 1;
  byId("of-hypotheses").hidden = state.show !== "hypotheses";
  byId("of-steps").hidden = state.show !== "steps";
  if (state.show === "hypotheses") {
    byId("hypothesis").max = hand.hypotheses.length - 1; byId("hypothesis").value = state.hypothesis;
    byId("hypothesis-text").textContent = hand.hypotheses[state.hypothesis].text;
    table(byId("modes"), ["mode", "of the draws", "from the prediction", ""], hand.modes.map((m, k) => {
      const button = document.createElement("button");
      button.type = "button"; button.textContent = "show";
      button.addEventListener("click", () => { state.hypothesis = m.medoid; update(); });
      return [String(k + 1), m.share, m.apart, button];
    }));
  }
  delete report.step;
  if (state.show === "steps") {
    const last = hand.steps.length - 1;
    state.step = Math.min(state.step, last);
    byId("step").max = last; byId("step").value = state.step;
    const fixed = hand.steps[state.step].fixed.reduce((a, b) => a + b, 0);
    byId("step-number").textContent = `${state.step} of ${last}: ${fixed} of ${hand.steps[0].fixed.length} tokens fixed`;
    tokenCells(hand.steps[state.step]);
    report.step = state.step; report.fixed = fixed;
  }
  if (gl) draw();
}

function openPicture(k) {
  Object.assign(state, { picture: k, hand: 0, hypothesis: 0, step: 0, yaw: 0, pitch: 0, zoom: 1 });
  for (const section of document.querySelectorAll("section.picture")) section.hidden = Number(section.dataset.number) !== k;
  update();
}

function listen() {
  const canvas = byId("scene"), pointers = new Map();
  const apart = () => { const [a, b] = [...pointers.values()]; return Math.hypot(a[0] - b[0], a[1] - b[1]); };
  canvas.addEventListener("pointerdown", (e) => { pointers.set(e.pointerId, [e.clientX, e.clientY]); canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", (e) => {
    const from = pointers.get(e.pointerId);
    if (!from) return;
    const before = pointers.size === 2 ? apart() : 0;
    pointers.set(e.pointerId, [e.clientX, e.clientY]);
    if (pointers.size === 2) state.zoom *= apart() / before;
    else { state.yaw -= (e.clientX - from[0]) / 120; state.pitch += (e.clientY - from[1]) / 120; }
    draw();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (e) => pointers.delete(e.pointerId));
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); state.zoom *= Math.exp(-e.deltaY / 600); draw(); }, { passive: false });
  window.addEventListener("resize", draw);
}

byId("viewer").hidden = false;
const works = start();
for (const stills of document.querySelectorAll(".stills")) stills.hidden = works;
document.querySelector(".stage").hidden = !works;
for (const id of ["color", "alone"]) byId(id).addEventListener("change", update);
byId("front").addEventListener("click", () => { Object.assign(state, { yaw: 0, pitch: 0, zoom: 1 }); update(); });
byId("hypothesis").addEventListener("input", (e) => { state.hypothesis = Number(e.target.value); update(); });
byId("step").addEventListener("input", (e) => { state.step = Number(e.target.value); update(); });
byId("picture")?.addEventListener("change", (e) => openPicture(Number(e.target.value)));
if (byId("picture")) byId("picture").value = state.picture;
openPicture(state.picture);
state.hand = number("hand", hands().length);
if (params.has("hypothesis") && chosen().hypotheses.length) Object.assign(state, { show: "hypotheses", hypothesis: number("hypothesis", chosen().hypotheses.length) });
if (params.has("t") && chosen().steps.length) Object.assign(state, { show: "steps", step: number("t", chosen().steps.length) });
if (params.has("color")) byId("color").value = params.get("color");
update();
if (works) { listen(); countCovered(); }
report.ready = "yes";
