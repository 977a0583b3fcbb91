"use strict";
// Meshes to turn, drawn as sorted triangles on a 2D canvas: works in every browser and on paper.
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
const faces = new Uint16Array(bytes(FACES));
const BLUE = [122, 170, 228], GREEN = [150, 200, 132];

function vertices(text) {
  if (!text) return null;
  const v = Float32Array.from(new Int16Array(bytes(text)));
  const low = [1e9, 1e9, 1e9], high = [-1e9, -1e9, -1e9];
  v.forEach((x, i) => { low[i % 3] = Math.min(low[i % 3], x); high[i % 3] = Math.max(high[i % 3], x); });
  return v.map((x, i) => x - (low[i % 3] + high[i % 3]) / 2);
}

function draw(context, points, color, center, scale, yaw, pitch) {
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const turned = new Float32Array(points.length);
  for (let i = 0; i < points.length; i += 3) {
    const x = cy * points[i] + sy * points[i + 2], z = cy * points[i + 2] - sy * points[i];
    turned[i] = x; turned[i + 1] = cp * points[i + 1] - sp * z; turned[i + 2] = sp * points[i + 1] + cp * z;
  }
  const order = Array.from({ length: faces.length / 3 }, (_, f) => f);
  const depth = order.map((f) => turned[3 * faces[3 * f] + 2] + turned[3 * faces[3 * f + 1] + 2] + turned[3 * faces[3 * f + 2] + 2]);
  order.sort((a, b) => depth[b] - depth[a]);
  for (const f of order) {
    const [a, b, c] = [3 * faces[3 * f], 3 * faces[3 * f + 1], 3 * faces[3 * f + 2]];
    const u = [0, 1, 2].map((k) => turned[b + k] - turned[a + k]), w = [0, 1, 2].map((k) => turned[c + k] - turned[a + k]);
    const n = [u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]];
    const length = Math.hypot(...n) || 1, facing = Math.abs(n[2]) / length;
    const light = 0.35 + 0.5 * facing + 0.15 * Math.max(0, -n[1] * Math.sign(-n[2]) / length);
    context.fillStyle = context.strokeStyle = `rgb(${color.map((v) => Math.round(v * light)).join(",")})`;
    context.beginPath();
    for (const p of [a, b, c]) context.lineTo(center[0] + scale * turned[p], center[1] + scale * turned[p + 1]);
    context.closePath(); context.fill(); context.stroke();
  }
}

for (const canvas of document.querySelectorAll("canvas")) {
  const meshes = [[vertices(canvas.dataset.mesh), BLUE], [vertices(canvas.dataset.truth), GREEN]].filter(([v]) => v);
  let yaw = 0, pitch = 0, from = null;
  const reach = Math.max(...meshes.map(([v]) => { let r = 1; for (let i = 0; i < v.length; i += 3) r = Math.max(r, Math.hypot(v[i], v[i + 1], v[i + 2])); return r; }));
  const paint = () => {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth * ratio, height = canvas.clientHeight * ratio;
    canvas.width = width; canvas.height = height;
    const context = canvas.getContext("2d"), share = width / meshes.length;
    context.lineWidth = 0.6 * ratio;
    meshes.forEach(([v, color], k) => draw(context, v, color, [share * (k + 0.5), height / 2], 0.46 * Math.min(share, height) / reach, yaw, pitch));
  };
  canvas.addEventListener("pointerdown", (e) => { from = [e.clientX, e.clientY, yaw, pitch]; canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", (e) => {
    if (!from) return;
    yaw = from[2] - (e.clientX - from[0]) / 90; pitch = from[3] + (e.clientY - from[1]) / 90; paint();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { from = null; });
  window.addEventListener("resize", paint);
  paint();
}
