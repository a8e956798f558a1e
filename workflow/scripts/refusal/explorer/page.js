// The page of the explorer. Texts of models and prompts enter it as text nodes, or escaped where
// Plotly reads markup.
"use strict";

const study = JSON.parse(document.getElementById("document").textContent);
const promptOf = new Map(study.prompts.map((prompt, place) => [prompt.id, { ...prompt, place }]));
const UNSTEERED = study.interventions.find((one) => one.group === "none") ?? study.interventions[0];
const COLOURS = { harmless: "#3C97D3", harmful: "#F3B994", borderline: "#9BBF7D" };
const MOVED = { harmless: "#0B3C5D", harmful: "#661155", borderline: "#3F5F1F" };
const FACET_NAMES = {
  k: "k (directions)", alpha: "alpha", scope: "scope", strength: "strength", length: "length",
  origin: "origin", side: "side", tokens: "steered tokens", draw: "draw", name: "recipe",
};
const ALWAYS_SHOWN = ["k", "alpha"];
// Of a ratio, on a logarithmic axis.
const RATIOS = [0.1, 0.2, 0.5, 0.8, 1, 1.2, 1.5, 2, 3, 5, 10, 20, 50, 100, 1e3, 1e4, 1e5, 1e6];
const LOWER_IS_BETTER = ["bypass", "kl"];
const state = { model: study.models[0], intervention: UNSTEERED, prompt: study.prompts[0]?.id };

const element = (id) => document.getElementById(id);
const distinct = (values) => [...new Set(values)];
const show = (value) => (value === null || value === undefined ? "–" : Number(value.toPrecision(3)).toString());
const interval = (row) => (row ? `${show(row.value)} [${show(row.low)}, ${show(row.high)}]` : "–");

function node(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

// Numbers in their order, words such as `full` after them.
function inOrder(values) {
  const rank = (value) => (value === "" || isNaN(value) ? Infinity : Number(value));
  return [...values].sort((a, b) => (rank(a) === rank(b) ? 0 : rank(a) - rank(b)));
}

function fill(select, values, chosen, names = values) {
  select.replaceChildren(...values.map((value, place) => node("option", names[place], { value })));
  select.value = chosen;
  select.disabled = values.length < 2;
}

// Plotly reads a little markup in texts, so what others wrote is escaped, and broken into lines.
function escaped(text) {
  const lines = [""];
  for (const word of text.slice(0, 400).split(/\s+/)) {
    if (lines[lines.length - 1].length + word.length > 60) lines.push("");
    lines[lines.length - 1] += `${word} `;
  }
  const safe = lines.map((line) =>
    line.trim().replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;"));
  return safe.join("<br>");
}

function draw(id, traces, layout, summary) {
  const plot = element(id);
  plot.setAttribute("aria-label", summary);
  const common = {
    margin: { l: 70, r: 15, t: 40, b: 50 }, font: { family: "system-ui, sans-serif", size: 13 },
    hovermode: "closest", legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    paper_bgcolor: "#fff", plot_bgcolor: "#fff",
  };
  const buttons = ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"];
  // By default plotly.js 4 offers to send what is drawn to its makers.
  const settings = { responsive: true, displaylogo: false, modeBarButtonsToRemove: buttons,
    showSendToCloud: false, plotlyServerURL: "" };
  return Plotly.react(plot, traces, { ...common, ...layout }, settings);
}

function estimate(intervention, metric, dataset, judge) {
  const found = state.model.estimates.find((row) =>
    row[0] === intervention.name && row[1] === metric && row[2] === dataset && row[3] === judge);
  if (!found || found[4] === null) return null;
  return { value: found[4], low: found[5], high: found[6], n: found[7] };
}

// ---- choice of model and intervention

function choose(intervention) {
  state.intervention = intervention;
  drawChoice();
  drawAll();
}

// The intervention that is as asked and otherwise most like the one before.
function nearest(candidates) {
  const now = state.intervention;
  const alike = (one) => study.facets.filter((facet) => one[facet] === now[facet]).length;
  return candidates.reduce((best, one) => (alike(one) > alike(best) ? one : best));
}

function drawChoice() {
  const now = state.intervention;
  element("group").value = now.group;
  const group = study.interventions.filter((one) => one.group === now.group);
  const twins = group.filter((one) => study.facets.every((facet) => one[facet] === now[facet]));
  const facets = study.facets.filter((facet) =>
    ALWAYS_SHOWN.includes(facet) || distinct(group.map((one) => one[facet])).length > 1);
  if (twins.length > 1) facets.push("name");
  const focused = document.activeElement?.id;
  element("facets").replaceChildren(...facets.map((facet) => {
    const among = facet === "name" ? twins : group;
    const select = node("select", "", { id: `facet-${facet}` });
    const values = inOrder(distinct(among.map((one) => one[facet])));
    fill(select, values, now[facet], values.map((value) => value || "does not apply"));
    select.addEventListener("change", () =>
      choose(nearest(among.filter((one) => one[facet] === select.value))));
    const label = node("label", FACET_NAMES[facet]);
    label.append(select);
    return label;
  }));
  // The choices were made anew: a user of the keyboard stays where they were.
  if (focused?.startsWith("facet-")) element(focused)?.focus();
  element("chosen").replaceChildren(
    node("strong", now.label), node("span", " "), node("code", now.name));
}

// ---- landing

function points(landing, label, transformed) {
  const places = study.prompts.map((_, place) => place).filter((place) =>
    study.prompts[place].label === label && landing.pc1[place] !== null);
  return {
    name: transformed ? `${label}, transformed` : label,
    ids: places.map((place) => study.prompts[place].id),
    hovertext: places.map((place) =>
      `${escaped(study.prompts[place].text)}<br>${escaped(study.prompts[place].id)}, t = ${show(landing.t[place])}`),
    hoverinfo: "text",
    marker: { color: (transformed ? MOVED : COLOURS)[label] ?? "#777", size: transformed ? 7 : 6,
      symbol: transformed ? "diamond-open" : "circle" },
    visible: label === "borderline" ? "legendonly" : true,
    places,
  };
}

function landings() {
  const all = state.model.landing;
  const moved = all.find((one) => one.intervention === state.intervention.name);
  const plain = moved && all.find((one) => one.intervention === UNSTEERED.name &&
    one.position === moved.position && one.layer === moved.layer);
  return { moved, plain };
}

function drawLanding() {
  const { moved, plain } = landings();
  const known = Boolean(moved && plain);
  element("landing-missing").hidden = known;
  element("landing-missing").textContent = known ? "" :
    "Not measured: landing places are those of interventions that act on one layer's activations.";
  for (const id of ["plane", "along"]) element(id).hidden = !known;
  if (!known) return;
  const labels = distinct(study.prompts.map((prompt) => prompt.label));
  const groups = labels.map((label) => [points(plain, label, false), plain]);
  if (moved !== plain) groups.push(...labels.map((label) => [points(moved, label, true), moved]));
  const where = `position ${moved.position}, layer ${moved.layer}`;
  const summary = `Landing of ${state.intervention.label} at ${where}.`;
  const traces = groups.map(([group, landing]) => ({ ...group, type: "scatter", mode: "markers",
    x: group.places.map((place) => landing.pc1[place]),
    y: group.places.map((place) => landing.pc2[place]) }));
  traces.push(...followed(plain, moved, ["pc1", "pc2"]));
  draw("plane", traces, { xaxis: { title: { text: `PC 1 (${where})` }, zeroline: false },
    yaxis: { title: { text: "PC 2" }, zeroline: false } }, `${summary} Scatter plot of two principal components.`);
  drawAlong(groups, summary);
}

function drawAlong(groups, summary) {
  const traces = groups.map(([group, landing]) => ({ ...group, type: "box", boxpoints: "all",
    jitter: 0.6, pointpos: 0, line: { width: 1 }, orientation: "h", showlegend: false, hoveron: "points",
    x: group.places.map((place) => landing.t[place]), text: group.hovertext,
    marker: { ...group.marker, size: 4 } }));
  draw("along", traces, { margin: { l: 150, r: 15, t: 40, b: 50 },
    xaxis: { title: { text: "position t along DiM" }, zeroline: false },
    yaxis: { autorange: "reversed" },
    shapes: [0, 1].map((x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1,
      line: { color: "#888", width: 1, dash: "dot" } })) }, `${summary} Box plots of t.`);
}

// One prompt, from where it was to where it lands.
function followed(plain, moved, axes) {
  const prompt = promptOf.get(state.prompt);
  if (!prompt || plain[axes[0]][prompt.place] === null) return [];
  const [x, y] = axes.map((axis) => [plain[axis][prompt.place], moved[axis][prompt.place]]);
  return [{ type: "scatter", mode: "lines+markers", name: "chosen prompt", x, y, ids: [prompt.id, prompt.id],
    hovertext: [escaped(prompt.text), escaped(prompt.text)], hoverinfo: "text",
    line: { color: "#000", width: 1.5 }, marker: { color: "#000", size: 10, symbol: ["circle-open", "diamond"] } }];
}

// ---- refusal and perplexity

// Points with their intervals; those of one data set lie beside each other, so that none hides another.
function bars(name, colour, symbol, shift, rows) {
  return {
    type: "scatter", mode: "markers", name, y: rows.map((_, place) => place + shift), x: rows.map((row) => row?.value ?? null),
    error_x: { type: "data", symmetric: false, thickness: 2, width: 6, color: colour,
      array: rows.map((row) => (row?.high ?? row?.value ?? 0) - (row?.value ?? 0)),
      arrayminus: rows.map((row) => (row?.value ?? 0) - (row?.low ?? row?.value ?? 0)) },
    marker: { color: colour, size: 10, symbol },
    hovertext: rows.map((row) => (row ? `${name}: ${interval(row)}, n = ${row.n}` : "")), hoverinfo: "text",
  };
}

function drawEstimate(id, metric, judge, axis) {
  const rows = state.model.estimates.filter((row) => row[1] === metric && row[3] === judge);
  const datasets = distinct(rows.map((row) => row[2]));
  const chosen = [["unsteered", "#777", "circle", -0.13, UNSTEERED], [state.intervention.label, "#661155", "diamond", 0.13, state.intervention]];
  const rowsOf = (one) => datasets.map((dataset) => estimate(one, metric, dataset, judge));
  const traces = chosen.map(([name, colour, symbol, shift, one]) => bars(escaped(name), colour, symbol, shift, rowsOf(one)));
  const summary = datasets.map((dataset) =>
    `${dataset}: ${chosen.map(([name, , , , one]) => `${name} ${interval(estimate(one, metric, dataset, judge))}`).join("; ")}`);
  const layout = { xaxis: axis, margin: { l: 90, r: 15, t: 60, b: 50 }, yaxis: { range: [datasets.length - 0.5, -0.5],
    tickvals: datasets.map((_, place) => place), ticktext: datasets.map(escaped), zeroline: false } };
  draw(id, traces, layout, `${axis.title.text}. ${summary.join(". ")}`);
}

function drawTrade(judge) {
  const all = study.interventions.map((one) => ({ one, refused: estimate(one, "refused", "harmful", judge),
    cost: estimate(one, "perplexity_ratio", "text", "model") })).filter(({ refused, cost }) => refused && cost);
  const others = all.filter(({ one }) => one !== state.intervention);
  const here = all.filter(({ one }) => one === state.intervention);
  const spread = (rows, key) => ({ type: "data", symmetric: false, thickness: 2, width: 6,
    array: rows.map((row) => (row[key].high ?? row[key].value) - row[key].value),
    arrayminus: rows.map((row) => row[key].value - (row[key].low ?? row[key].value)) });
  const trace = (rows, more) => ({ type: "scatter", mode: "markers", ids: rows.map(({ one }) => one.name),
    x: rows.map(({ cost }) => cost.value), y: rows.map(({ refused }) => refused.value),
    hovertext: rows.map(({ one, cost, refused }) => `${escaped(one.label)}<br>${escaped(one.name)}<br>refused ${interval(refused)}<br>perplexity ${interval(cost)}`),
    hoverinfo: "text", ...more });
  draw("trade", [
    trace(others, { name: "other interventions", marker: { color: "#9a9a9a", size: 7 } }),
    trace(here, { name: escaped(state.intervention.label), error_x: spread(here, "cost"), error_y: spread(here, "refused"),
      marker: { color: "#661155", size: 12, symbol: "diamond" } }),
  ], { xaxis: { type: "log", tickvals: RATIOS, title: { text: "perplexity of text, relative to unsteered" } },
    yaxis: { range: [-0.03, 1.03], title: { text: "harmful prompts refused" } } },
  `Refusal of harmful prompts against perplexity of ${all.length} interventions.`);
}

function drawEstimates() {
  const judge = element("judge").value;
  drawEstimate("refused", "refused", judge, { range: [-0.03, 1.03], title: { text: "share refused" } });
  drawEstimate("perplexity", "perplexity_ratio", "model", { type: "log", title: { text: "perplexity, relative to unsteered" } });
  drawTrade(judge);
  const keys = state.model.estimates.filter((row) => row[0] === UNSTEERED.name || row[0] === state.intervention.name)
    .map((row) => JSON.stringify(row.slice(1, 4)));
  element("estimates").replaceChildren(...distinct(keys).map((key) => {
    const [metric, dataset, by] = JSON.parse(key);
    const rows = [UNSTEERED, state.intervention].map((one) => estimate(one, metric, dataset, by));
    const line = node("tr", "");
    line.append(node("td", metric.replaceAll("_", " ")), node("td", dataset), node("td", by),
      ...rows.map((row) => node("td", interval(row), { class: "n" })), node("td", rows[1]?.n ?? "–", { class: "n" }));
    return line;
  }));
}

// ---- completions

function completion(name, place) {
  const { texts, interventions } = state.model.completions;
  const text = interventions[name]?.text[place];
  if (text === null || text === undefined) return { text: "not generated", class: "redacted" };
  return text < 0 ? { text: "redacted", class: "redacted" } : { text: texts[text] };
}

function drawPrompts() {
  const label = element("label").value;
  const prompts = study.prompts.filter((prompt) => prompt.label === label);
  if (promptOf.get(state.prompt)?.label !== label) state.prompt = prompts[0]?.id;
  fill(element("prompt"), prompts.map((prompt) => prompt.id), state.prompt,
    prompts.map((prompt) => `${prompt.id}: ${prompt.text.slice(0, 80)}`));
}

function completionRow(one, place, judges, unsteered) {
  const { interventions } = state.model.completions;
  const words = { 1: "refused", 0: "not refused" };
  const said = completion(one.name, place);
  const line = node("tr", "", said.text === unsteered && one !== UNSTEERED ? { class: "same" } : {});
  if (one === state.intervention) line.setAttribute("aria-current", "true");
  const name = node("th", "", { scope: "row" });
  const button = node("button", one.label, { type: "button", title: one.name });
  button.addEventListener("click", () => choose(one));
  name.append(button);
  line.append(name, ...judges.map((judge) =>
    node("td", words[interventions[one.name].refused[judge]?.[place]] ?? "–")));
  line.append(node("td", said.text, said.class ? { class: said.class } : {}));
  return line;
}

function drawCompletions() {
  const prompt = promptOf.get(state.prompt);
  if (!prompt) return;
  element("asked").replaceChildren(node("strong", "Prompt: "), node("span", prompt.text));
  const { interventions } = state.model.completions;
  const judges = distinct(Object.values(interventions).flatMap((row) => Object.keys(row.refused)));
  element("completions-head").replaceChildren(node("th", "intervention", { scope: "col" }),
    ...judges.map((judge) => node("th", judge, { scope: "col" })), node("th", "completion", { scope: "col" }));
  const unsteered = completion(UNSTEERED.name, prompt.place).text;
  const every = study.interventions.filter((one) => interventions[one.name]);
  const shown = every.filter((one) => element("rows").value === "all" || one === UNSTEERED ||
    one === state.intervention || completion(one.name, prompt.place).text !== unsteered);
  element("completions").replaceChildren(...shown.map((one) => completionRow(one, prompt.place, judges, unsteered)));
  element("completions-note").textContent = `${shown.length} of ${every.length} interventions; pale: as unsteered.` +
    (state.model.redacted ? " What this model says to prompts that are not harmless is redacted." : "");
}

function follow(id) {
  if (!promptOf.has(id)) return;
  state.prompt = id;
  element("label").value = promptOf.get(id).label;
  drawPrompts();
  drawLanding();
  drawCompletions();
}

function step(by) {
  const options = [...element("prompt").options].map((option) => option.value);
  follow(options[(options.indexOf(state.prompt) + by + options.length) % options.length]);
}

// ---- candidates

function drawMap() {
  const [method, scope, score] = ["method", "scope", "score"].map((id) => element(id).value);
  const rows = state.model.candidates.filter((row) => row.method === method && row.scope === scope);
  const positions = distinct(rows.map((row) => row.position)).sort((a, b) => a - b);
  const layers = distinct(rows.map((row) => row.layer)).sort((a, b) => a - b);
  const at = (layer, position) => rows.find((row) => row.layer === layer && row.position === position);
  const grid = (value) => layers.map((layer) => positions.map((position) => value(at(layer, position))));
  const cell = (row) => row && `position ${row.position}, layer ${row.layer}: ${score} ${show(row[score])}` +
    `<br>${row.passed ? "passed" : escaped(`rejected: ${row.reason || "no reason given"}`)}`;
  const few = rows.length <= 100;
  const trace = { type: "heatmap", x: positions.map(String), y: layers.map(String), z: grid((row) => row?.[score] ?? null),
    hovertext: grid(cell), hoverinfo: "text", hoverongaps: true, xgap: 1, ygap: 1,
    colorscale: [[0, "#f3f8fc"], [1, "#5a9fcb"]], reversescale: LOWER_IS_BETTER.includes(score), colorbar: { title: { text: score } } };
  if (few) Object.assign(trace, { text: grid((row) => (row?.[score] ?? null) === null ? "" : show(row[score])), texttemplate: "%{text}" });
  const chosen = rows.filter((row) => row.selected);
  const named = chosen.map((row) => `position ${row.position}, layer ${row.layer}${row.fallback ? ", used although it was rejected" : ""}`);
  element("selected").textContent = `Selected: ${named.join("; ") || "none"}.`;
  const shapes = chosen.map((row) => ({ type: "rect", fillcolor: "rgba(0,0,0,0)", line: { color: "#d55e00", width: 3, dash: row.fallback ? "dash" : "solid" },
    x0: positions.indexOf(row.position) - 0.48, x1: positions.indexOf(row.position) + 0.48,
    y0: layers.indexOf(row.layer) - 0.48, y1: layers.indexOf(row.layer) + 0.48 }));
  draw("map", [trace], { shapes, plot_bgcolor: "#e0e0e0", xaxis: { type: "category", title: { text: "position" }, showgrid: false },
    yaxis: { type: "category", title: { text: "layer" }, showgrid: false } },
  `${score} of ${rows.length} candidates of ${method}, ${scope}. ${element("selected").textContent}`);
}

function fillMap() {
  const rows = state.model.candidates;
  const keep = (id, values) => fill(element(id), values, values.includes(element(id).value) ? element(id).value : values[0]);
  keep("method", distinct(rows.map((row) => row.method)));
  keep("scope", distinct(rows.filter((row) => row.method === element("method").value).map((row) => row.scope)));
  const known = rows.filter((row) => row.method === element("method").value && row.scope === element("scope").value);
  keep("score", study.scores.filter((score) => known.some((row) => row[score] !== null)));
}

// ---- the page

function drawAll() {
  drawLanding();
  drawEstimates();
  drawCompletions();
}

function chooseModel() {
  state.model = study.models.find((model) => model.name === element("model").value);
  const judges = distinct(state.model.estimates.filter((row) => row[1] === "refused").map((row) => row[3])).sort();
  const now = element("judge").value;
  fill(element("judge"), judges, judges.includes(now) ? now : judges[0]);
  fillMap();
  drawMap();
  drawAll();
}

function listen() {
  const on = (id, event, action) => element(id).addEventListener(event, action);
  for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
  on("model", "change", chooseModel);
  on("group", "change", () => choose(nearest(study.interventions.filter((one) => one.group === element("group").value))));
  on("judge", "change", drawEstimates);
  on("label", "change", () => { drawPrompts(); follow(state.prompt); });
  on("prompt", "change", () => follow(element("prompt").value));
  on("previous", "click", () => step(-1));
  on("next", "click", () => step(1));
  on("rows", "change", drawCompletions);
  for (const id of ["method", "scope", "score"]) on(id, "change", () => { fillMap(); drawMap(); });
  for (const id of ["plane", "along"]) element(id).on("plotly_click", ({ points: [point] }) => follow(point.id));
  element("trade").on("plotly_click", ({ points: [point] }) =>
    choose(study.interventions.find((one) => one.name === point.id)));
}

function start() {
  const models = study.models.map((model) => model.name);
  fill(element("model"), models, models[0]);
  const groups = distinct(study.interventions.map((one) => one.group));
  fill(element("group"), groups, UNSTEERED.group);
  const labels = distinct(study.prompts.map((prompt) => prompt.label));
  fill(element("label"), labels, labels[0]);
  // The first landing that was measured, so that the page does not open on an empty picture.
  const names = new Set(state.model.landing.map((one) => one.intervention));
  state.intervention = study.interventions.find((one) => one !== UNSTEERED && names.has(one.name)) ?? UNSTEERED;
  drawPrompts();
  drawChoice();
  chooseModel();
  listen();
}

start();
