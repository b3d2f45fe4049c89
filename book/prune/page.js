// The page: thirty bars to switch off, and what the model writes with all layers and without those. `settings.json` beside it,
// written by build.py, has the scores and the name and size of the model file; `wllama/` has llama.cpp as WebAssembly.

import { removeLayers } from "./gguf.js";

const TOKENS = 60; // written a time
const MEMORY = { n_ctx: 1024, n_batch: 64, n_ubatch: 64, n_parallel: 1 }; // small, for two models in one page
const OVERHEAD = 128 * 2 ** 20; // bytes beside the weights, for each of the two models
const MB = (bytes) => `${Math.round(bytes / 1e6)} MB`;
const at = (id) => document.getElementById(id);

// Half of what there is: llama.cpp's threads wait for each other by spinning, and where others want the processor, too, two on two
// cores wrote 0.3 tokens a second, and one 3.8.
const half = Math.floor((navigator.hardwareConcurrency || 1) / 2);
const threads = self.crossOriginIsolated ? Math.max(1, Math.min(4, half)) : 1;
const removed = new Set();
let settings, file, dense, cut; // {model, layers, bytes, without, seconds}; `file` is the Blob of the whole model
let before = null; // the last text with all layers: {prompt, text, speed}

function say(sentence, wrong = false) {
  at("status").textContent = sentence;
  at("status").classList.toggle("wrong", wrong);
}

// ---- what the browser must have

// A sentence on what this browser lacks for two models of `bytes` each, or null.
function missing(bytes) {
  if (typeof WebAssembly === "undefined")
    return "This browser has no WebAssembly, or it is switched off, and the model needs it. Try a current Chrome, Edge or Firefox.";
  try {
    new WebAssembly.Memory({ address: "i64", initial: BigInt(Math.ceil((2 * (bytes + OVERHEAD)) / 65536)) });
  } catch (error) {
    if (error instanceof RangeError) return noMemory(bytes);
    return "The WebAssembly of this browser has no 64-bit memory, which the model needs. Chrome and Edge have it from version 133, Firefox from 134.";
  }
  return null;
}

const noMemory = (bytes) =>
  `The browser did not get enough memory: the page needs about ${MB(2 * (bytes + OVERHEAD))}. Close other tabs and load it again, or use a machine with more memory.`;

function explain(error) {
  console.error(error);
  const message = String(error?.message ?? error);
  if (error instanceof RangeError || /out of memory|memory access|alloc|\boom\b/i.test(message)) return noMemory(settings.model.bytes);
  return message;
}

// ---- the model

// The model file, with the bar moving while it comes.
async function fetched({ file: name, bytes }) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`The model file ${name} is not beside this page (the server says ${answer.status}): run make book again.`);
  const pieces = [], reader = answer.body.getReader();
  let have = 0;
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    pieces.push(value);
    have += value.length;
    at("progress").value = have / bytes;
    at("loaded").textContent = `${MB(have)} of ${MB(bytes)}`;
  }
  if (have !== bytes) throw new Error(`Only ${MB(have)} of ${MB(bytes)} of the model came: load the page again.`);
  return new Blob(pieces);
}

// A model without the layers `without`, ready to write.
async function started(without) {
  const begin = performance.now();
  const { Wllama, LoggerWithoutDebug } = await import("./wllama/index.js");
  const blob = without.length ? await removeLayers(file, without) : file;
  const model = new Wllama({ default: "wllama/wllama.wasm" }, { suppressNativeLog: true, logger: LoggerWithoutDebug });
  model.setCompat(null); // it would ask another host for files
  await model.loadModel([blob], { ...MEMORY, n_threads: threads, n_gpu_layers: 0 });
  const seconds = (performance.now() - begin) / 1000;
  return { model, bytes: blob.size, layers: model.getLoadedContextInfo().n_layer, without, seconds };
}

// Let `of` go on with `prompt` into the element `panel`; {prompt, text, speed} with tokens a second.
async function writeInto(panel, of, prompt) {
  let text = "", speed = NaN;
  at(`${panel}-numbers`).textContent = "writing …";
  const onData = (chunk) => {
    text += chunk.choices?.[0]?.text ?? "";
    speed = chunk.timings?.predicted_per_second ?? speed;
    show(panel, prompt, text);
  };
  show(panel, prompt, text);
  await of.model.createCompletion({ prompt, max_tokens: TOKENS, temperature: 0, stream: true, onData });
  return { prompt, text, speed };
}

function show(panel, prompt, text) {
  const given = document.createElement("b");
  given.textContent = prompt;
  at(panel).replaceChildren(given, text);
}

const perSecond = (speed) => `${speed.toFixed(1)} tokens a second`;
const numbers = (of, speed) => `${of.layers} layers, ${MB(of.bytes)}, ${perSecond(speed)}`;

// ---- what the buttons do

async function load() {
  const begin = performance.now();
  at("load").hidden = true;
  at("loading").hidden = false;
  at("prompt").focus();
  say(`Loading the model, ${MB(settings.model.bytes)}. You can choose layers meanwhile.`);
  file = await fetched(settings.model);
  at("progress").removeAttribute("value"); // how long the rest takes is not known
  at("loaded").textContent = "starting the model";
  dense = await started([]);
  at("loading").hidden = true;
  at("facts").textContent += ` Loaded in ${((performance.now() - begin) / 1000).toFixed(1)} s.`;
  await write();
}

async function write() {
  const prompt = at("prompt").value.trim() || at("prompt").defaultValue;
  const without = [...removed].sort((a, b) => a - b);
  if (before?.prompt !== prompt) {
    say("Writing with all layers …");
    before = await writeInto("before", dense, prompt);
    at("before-numbers").textContent = numbers(dense, before.speed);
  }
  const first = `With all ${dense.layers} layers, ${perSecond(before.speed)}: ${prompt} ${before.text}`;
  if (!without.length) {
    at("after").textContent = "All layers are on. Switch some off, and write again.";
    at("after-numbers").textContent = "";
    return say(`${first}. Now switch layers off.`);
  }
  if (String(cut?.without) !== String(without)) {
    say(`Cutting ${without.length} layers out of the file …`);
    await cut?.model.exit();
    cut = null;
    cut = await started(without);
  }
  say(`Writing with ${cut.layers} layers …`);
  const after = await writeInto("after", cut, prompt);
  at("after-numbers").textContent =
    `${numbers(cut, after.speed)} (${(after.speed / before.speed).toFixed(2)} times as fast); cut in ${cut.seconds.toFixed(1)} s; without ${without.join(", ")}`;
  say(`Without ${without.length} layers, ${perSecond(after.speed)}, before ${before.speed.toFixed(1)}: ${prompt} ${after.text}`);
}

// Do one thing at a time; what goes wrong is said.
async function busy(work) {
  const byKeyboard = document.activeElement === at("write"); // a disabled button loses the focus
  at("write").disabled = true;
  document.querySelector("main").setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    at("loading").hidden = true;
    at("load").hidden = Boolean(dense);
    say(explain(error), true);
  }
  document.querySelector("main").removeAttribute("aria-busy");
  at("write").disabled = !dense;
  if (byKeyboard && document.activeElement === document.body) at("write").focus();
}

// ---- bars

function drawBars() {
  const logs = settings.layers.map((layer) => Math.log(layer.score));
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  const bars = settings.layers.map(({ layer, score }) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", `Layer ${layer}, Block Influence ${score.toFixed(3)}`);
    for (const [name, text] of [["score", score.toFixed(3)], ["bar", ""], ["number", layer]]) {
      const part = document.createElement("span");
      part.className = name;
      part.textContent = text;
      if (name === "bar") part.style.height = `${0.8 + (7 * (logs[layer] - low)) / (high - low)}rem`;
      button.append(part);
    }
    button.tabIndex = layer ? -1 : 0;
    button.addEventListener("click", () => {
      if (!removed.delete(layer)) removed.add(layer);
      moveTo(layer);
      drawChoice();
    });
    return button;
  });
  at("layers").append(...bars);
  at("layers").addEventListener("keydown", (event) => {
    const here = bars.indexOf(document.activeElement), last = bars.length - 1;
    const to = { ArrowLeft: Math.max(here - 1, 0), ArrowRight: Math.min(here + 1, last), Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    moveTo(to);
    bars[to].focus();
  });
}

// One bar at a time is reached by Tab.
function moveTo(layer) {
  [...at("layers").children].forEach((bar, i) => (bar.tabIndex = i === layer ? 0 : -1));
}

function drawChoice() {
  [...at("layers").children].forEach((bar, layer) => bar.setAttribute("aria-pressed", String(!removed.has(layer))));
  const off = [...removed].sort((a, b) => a - b);
  const all = settings.layers.length;
  at("chosen").textContent = off.length ? `${all - off.length} of ${all} layers on; off: ${off.join(", ")}` : `all ${all} layers on`;
}

const byScore = () => [...settings.layers].sort((a, b) => a.score - b.score).map(({ layer }) => layer);

function choose(order) {
  const most = settings.layers.length - 1;
  const count = Math.min(Math.max(Math.round(at("count").valueAsNumber) || 0, 0), most);
  at("count").value = count;
  removed.clear();
  order.slice(0, count).forEach((layer) => removed.add(layer));
  drawChoice();
}

// ---- begin

async function begin() {
  const answer = await fetch("settings.json");
  if (!answer.ok) throw new Error("The files beside this page are missing: it runs in the built site (make book), in book/_build/html/prune.");
  settings = await answer.json();
  drawBars();
  drawChoice();
  at("count").max = settings.layers.length - 1;
  const order = byScore();
  at("said").textContent = `Lowest: ${order.slice(0, 6).join(", ")}. Highest: ${order.slice(-2).reverse().join(" and ")}. Measured on ${settings.measured_on}.`;
  at("choice").onclick = () => choose(order);
  at("last").onclick = () => choose(order.toSorted((a, b) => b - a));
  at("all").onclick = () => (removed.clear(), drawChoice());
  at("load").textContent = `Load the model (${MB(settings.model.bytes)})`;
  at("load").onclick = () => busy(load);
  at("write").onclick = () => busy(write);
  at("threads").textContent = self.crossOriginIsolated
    ? `The model runs on ${threads} of your processor's threads.`
    : "The model runs on one thread of your processor. Browsers allow several only where the server sends two headers (COOP and COEP), and this one does not: book/prune/serve.py sends them.";
  at("facts").textContent = `${settings.model.name}, ${MB(settings.model.bytes)} (weights of 4 bits), runs in llama.cpp, compiled to WebAssembly as wllama ${settings.wllama} (${MB(settings.wasm_bytes)}). Nothing comes from another host. To cut, the page writes the header of the model file anew and leaves the layers' weights out; no weight changes.`;
  const lacks = missing(settings.model.bytes);
  at("load").hidden = Boolean(lacks);
  say(lacks ?? "Ready. Load the model to begin.", Boolean(lacks));
}

begin().catch((error) => say(explain(error), true));
