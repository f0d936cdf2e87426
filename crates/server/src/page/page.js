// The page at `/`: asks the server that it came from, and nobody else.
"use strict";

const byId = (id) => document.getElementById(id);
const form = byId("form");
let model = null;
let asking = null;

/** An element with text and children; text is never taken for markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

function say(text, kind = "") {
  byId("status").textContent = text;
  byId("status").className = "note " + kind;
}

function headers() {
  const key = byId("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: "Bearer " + key } : {}) };
}

async function refusal(response) {
  if (response.status === 401) byId("key-label").hidden = false;
  const body = await response.json().catch(() => null);
  return new Error(body?.error?.message ?? `the server answers ${response.status}`);
}

// ---- What is asked ----

function mode() {
  return form.elements.mode.value;
}

/** The schema in its box; throws when it is no JSON. */
function schema() {
  const text = byId("schema").value.trim();
  return byId("schema-box").open && text ? JSON.parse(text) : null;
}

function request() {
  const number = (id) => (byId(id).value === "" ? undefined : Number(byId(id).value));
  const wanted = schema();
  const body = {
    model: model ?? undefined,
    max_tokens: number("max"),
    n: number("n"),
    temperature: number("temperature"),
    top_p: number("top-p"),
    seed: number("seed"),
    stop: byId("stop").value && !wanted ? byId("stop").value : undefined,
    response_format: wanted ? { type: "json_schema", json_schema: { name: "document", schema: wanted } } : undefined,
    stream: true,
    stream_options: { include_usage: true },
  };
  if (mode() === "chat") {
    return ["/v1/chat/completions", { ...body, messages: [{ role: "user", content: byId("prompt").value }], logprobs: true, top_logprobs: 5 }];
  }
  return ["/v1/completions", { ...body, prompt: byId("prompt").value, logprobs: 5 }];
}

/** The request as one would type it: without what only the page needs. */
function plain() {
  const [path, body] = request();
  for (const key of ["stream", "stream_options", "logprobs", "top_logprobs"]) delete body[key];
  return [location.origin + path, JSON.parse(JSON.stringify(body))];
}

function asCurl() {
  const [url, body] = plain();
  const quoted = JSON.stringify(body, null, 1).replaceAll("'", "'\\''");
  const key = byId("key").value ? " -H 'Authorization: Bearer '\"$BLACKLETTER_KEY\"" : "";
  return `curl ${url} -H 'Content-Type: application/json'${key} -d '${quoted}'`;
}

function asPython() {
  const [, body] = plain();
  // The client knows this option for conversations alone.
  if (mode() !== "chat" && body.response_format) {
    body.extra_body = { response_format: body.response_format };
    delete body.response_format;
  }
  const python = (value, indent = "    ") => {
    if (value === null) return "None";
    if (typeof value === "boolean") return value ? "True" : "False";
    if (Array.isArray(value)) return "[" + value.map((v) => python(v, indent)).join(", ") + "]";
    if (typeof value === "object") return "{" + Object.entries(value).map(([k, v]) => JSON.stringify(k) + ": " + python(v, indent)).join(", ") + "}";
    return JSON.stringify(value);
  };
  const call = mode() === "chat" ? "chat.completions" : "completions";
  const show = mode() === "chat" ? "choice.message.content" : "choice.text";
  const lines = Object.entries(body).map(([key, value]) => `    ${key}=${python(value)},`);
  const key = byId("key").value ? "os.environ[\"BLACKLETTER_KEY\"]" : '"none"';
  const imports = byId("key").value ? "import os\nfrom openai import OpenAI" : "from openai import OpenAI";
  return `${imports}\n\nclient = OpenAI(base_url="${location.origin}/v1", api_key=${key})\nanswer = client.${call}.create(\n${lines.join("\n")}\n)\nfor choice in answer.choices:\n    print(${show})\n`;
}

async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without a secure context there is no clipboard: select the text in a box of its own.
    const box = element("textarea", { class: "copy" });
    box.value = text;
    document.body.append(box);
    box.select();
    document.execCommand("copy");
    box.remove();
  }
  say(`The request is on the clipboard as ${what}.`, "good");
}

// ---- What is answered ----

/** The events of a streamed answer. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const parts = text.split("\n\n");
    text = parts.pop();
    for (const part of parts) {
      if (!part.startsWith("data: ")) continue;
      if (part === "data: [DONE]") return;
      yield JSON.parse(part.slice(6));
    }
  }
}

/** One alternative on the page. */
class Alternative {
  constructor(index, given) {
    this.text = "";
    this.tokens = 0;
    this.here = null;
    this.mark = element("span", { class: "mark" });
    this.out = element("div", { class: "out busy", tabindex: "0", role: "textbox", "aria-readonly": "true", "aria-multiline": "true", "aria-label": `Alternative ${index + 1}` });
    if (given) this.out.append(element("span", { class: "given" }, given));
    this.foot = element("span", {}, "");
    const copyButton = element("button", { type: "button" }, "Copy text");
    copyButton.addEventListener("click", () => copy(given + this.text, "text"));
    const title = element("h2", {}, `Alternative ${index + 1}`);
    this.box = element("article", {}, element("header", {}, title, this.mark, copyButton), this.out, element("footer", {}, this.foot));
    this.out.addEventListener("keydown", (event) => this.move(event));
    this.out.addEventListener("blur", () => this.leave());
  }

  add(text, logprob, alternatives) {
    this.text += text;
    const token = element("span", { class: "token" }, text);
    if (logprob !== undefined) {
      this.tokens += 1;
      token.classList.add("p" + Math.min(9, Math.floor(Math.exp(logprob) * 10)));
      token.chosen = logprob;
      token.alternatives = alternatives;
      token.addEventListener("pointerenter", () => showTip(token));
      token.addEventListener("pointerleave", hideTip);
    }
    this.out.append(token);
  }

  move(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 8, ArrowUp: -8, Home: -Infinity, End: Infinity }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const tokens = [...this.out.querySelectorAll(".token")];
    if (tokens.length === 0) return;
    const now = tokens.indexOf(this.here);
    const next = tokens[Math.max(0, Math.min(tokens.length - 1, now < 0 ? 0 : now + step))];
    this.here?.classList.remove("here");
    this.here = next;
    next.classList.add("here");
    next.scrollIntoView({ block: "nearest" });
    showTip(next);
  }

  leave() {
    this.here?.classList.remove("here");
    this.here = null;
    hideTip();
  }

  finish(reason, wanted) {
    this.out.classList.remove("busy");
    const why = { stop: "ended by itself", length: "cut at the limit" }[reason] ?? reason;
    this.foot.textContent = `${this.tokens} tokens · ${why}`;
    if (wanted === null) return;
    const problems = check(this.text, wanted);
    this.mark.className = "mark " + (problems.length ? "bad" : "good");
    this.mark.textContent = problems.length ? "✗ " + problems[0] : "✓ valid against the schema";
  }
}

function showTip(token) {
  const tip = byId("tip");
  const percent = (logprob) => (100 * Math.exp(logprob)).toFixed(logprob > -4.6 ? 1 : 3) + " %";
  const visible = (text) => text.replaceAll("\n", "⏎").replaceAll(" ", "␣") || "∅";
  const rows = (token.alternatives ?? []).map(([text, logprob]) =>
    element("tr", text === token.textContent ? { class: "chosen" } : {}, element("td", {}, visible(text)), element("td", {}, percent(logprob))));
  tip.replaceChildren(element("div", { class: "chosen" }, `${visible(token.textContent)} ${percent(token.chosen)}`), element("table", {}, element("tbody", {}, ...rows)));
  tip.hidden = false;
  const place = token.getBoundingClientRect();
  const left = Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const below = place.bottom + tip.offsetHeight + 8 < innerHeight;
  tip.style.left = scrollX + Math.max(8, left) + "px";
  tip.style.top = scrollY + (below ? place.bottom + 6 : place.top - tip.offsetHeight - 6) + "px";
}

function hideTip() {
  byId("tip").hidden = true;
}

async function run() {
  let path, body;
  try {
    [path, body] = request();
  } catch (error) {
    say("The schema is not JSON: " + error.message, "bad");
    return;
  }
  const wanted = schema();
  const given = mode() === "text" && wanted === null ? byId("prompt").value : "";
  const alternatives = Array.from({ length: body.n ?? 1 }, (_, index) => new Alternative(index, given));
  byId("results").replaceChildren(...alternatives.map((alternative) => alternative.box));
  byId("legend").hidden = false;
  asking = new AbortController();
  busy(true);
  say("Writing…");
  const start = performance.now();
  try {
    const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal: asking.signal });
    if (!response.ok) throw await refusal(response);
    let usage = null;
    for await (const event of events(response.body)) {
      if (event.error) throw new Error(event.error.message);
      usage = event.usage ?? usage;
      for (const choice of event.choices) {
        const alternative = alternatives[choice.index];
        show(alternative, choice);
        if (choice.finish_reason) alternative.finish(choice.finish_reason, wanted);
      }
    }
    const seconds = (performance.now() - start) / 1000;
    say(`Done: ${usage?.completion_tokens ?? "?"} tokens in ${seconds.toFixed(1)} s.`, "good");
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else say(error.message, "bad");
    alternatives.filter((a) => a.out.classList.contains("busy")).forEach((a) => a.finish("stopped", null));
  } finally {
    asking = null;
    busy(false);
  }
}

function show(alternative, choice) {
  if (choice.delta) {
    const token = choice.logprobs?.content?.[0];
    const text = choice.delta?.content ?? "";
    if (text || token) alternative.add(text, token?.logprob, token?.top_logprobs.map((t) => [t.token, t.logprob]));
    return;
  }
  const logprobs = choice.logprobs;
  const top = logprobs ? Object.entries(logprobs.top_logprobs[0] ?? {}).sort((a, b) => b[1] - a[1]) : [];
  if (choice.text || logprobs) alternative.add(choice.text, logprobs?.token_logprobs[0], top);
}

function busy(now) {
  byId("run").disabled = now;
  byId("halt").disabled = !now;
}

// ---- Checking documents: what the server promises, looked at once more ----

/** What is wrong with a text under a schema; empty when nothing is. */
function check(text, schema) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    return ["not JSON"];
  }
  return problems(value, schema, schema, "");
}

/** Whether a pattern is found in a text; one that no browser reads decides nothing. */
function matches(pattern, text) {
  for (const flags of ["u", ""]) {
    try {
      return new RegExp(pattern, flags).test(text);
    } catch {
      // Without the flag more is allowed.
    }
  }
  return true;
}

function problems(value, schema, root, at) {
  if (schema === true || schema === undefined) return [];
  if (schema === false) return [`${at || "the document"} is not allowed`];
  const kind = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
  const name = at || "the document";
  const found = [];
  const expect = (holds, what) => { if (!holds) found.push(`${name} ${what}`); };
  if (schema.$ref) {
    const target = schema.$ref === "#" ? root : schema.$ref.slice(2).split("/").reduce((s, k) => s?.[decodeURIComponent(k).replaceAll("~1", "/").replaceAll("~0", "~")], root);
    found.push(...problems(value, target, root, at));
  }
  if (schema.type) {
    const types = [].concat(schema.type);
    expect(types.includes(kind) || (types.includes("integer") && Number.isInteger(value)), `is ${kind}, not ${types.join(" or ")}`);
  }
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);
  if (schema.enum) expect(schema.enum.some((one) => same(one, value)), "is none of the allowed values");
  if ("const" in schema) expect(same(schema.const, value), "is not the required value");
  if (kind === "number") {
    expect(!(value < schema.minimum), `is below ${schema.minimum}`);
    expect(!(value > schema.maximum), `is above ${schema.maximum}`);
    expect(!(value <= schema.exclusiveMinimum), `is not above ${schema.exclusiveMinimum}`);
    expect(!(value >= schema.exclusiveMaximum), `is not below ${schema.exclusiveMaximum}`);
  }
  if (kind === "string") {
    const length = [...value].length;
    expect(!(length < schema.minLength), `has fewer than ${schema.minLength} characters`);
    expect(!(length > schema.maxLength), `has more than ${schema.maxLength} characters`);
    if (schema.pattern) expect(matches(schema.pattern, value), "does not match its pattern");
  }
  if (kind === "array") {
    expect(!(value.length < schema.minItems), `has fewer than ${schema.minItems} items`);
    expect(!(value.length > schema.maxItems), `has more than ${schema.maxItems} items`);
    const first = schema.prefixItems ?? [];
    value.forEach((item, i) => found.push(...problems(item, first[i] ?? schema.items, root, `${at}/${i}`)));
  }
  if (kind === "object") {
    for (const key of schema.required ?? []) expect(Object.hasOwn(value, key), `lacks ${key}`);
    for (const [key, inner] of Object.entries(value)) {
      const patterns = Object.entries(schema.patternProperties ?? {}).filter(([p]) => matches(p, key));
      const own = Object.hasOwn(schema.properties ?? {}, key) ? [schema.properties[key]] : [];
      const rules = [...own, ...patterns.map(([, s]) => s)];
      for (const rule of rules.length ? rules : [schema.additionalProperties]) found.push(...problems(inner, rule, root, `${at}/${key}`));
    }
  }
  for (const part of schema.allOf ?? []) found.push(...problems(value, part, root, at));
  const fits = (list) => list.filter((one) => problems(value, one, root, at).length === 0).length;
  if (schema.anyOf) expect(fits(schema.anyOf) > 0, "fits no alternative");
  if (schema.oneOf) expect(fits(schema.oneOf) === 1, "does not fit exactly one alternative");
  return found;
}

function checkSchema() {
  const note = byId("schema-note");
  try {
    const wanted = schema();
    note.className = "note good";
    note.textContent = wanted === null ? "" : "✓ JSON";
  } catch (error) {
    note.className = "note bad";
    note.textContent = "✗ " + error.message;
  }
}

// ---- The model ----

const words = (key) => key.replaceAll("_", " ");

/** A value as a table, a list of rows, or text. */
function table(value) {
  if (Array.isArray(value) && value.length && value.every((row) => row && typeof row === "object" && !Array.isArray(row))) {
    const columns = [...new Set(value.flatMap((row) => Object.keys(row)))].filter((key) => value.some((row) => typeof row[key] !== "object")).slice(0, 6);
    const cell = (row, key) => element("td", {}, format(row[key]));
    return element("table", {},
      element("thead", {}, element("tr", {}, ...columns.map((key) => element("th", { scope: "col" }, words(key))))),
      element("tbody", {}, ...value.map((row) => element("tr", {}, ...columns.map((key) => cell(row, key))))));
  }
  const rows = Object.entries(value).filter(([, inner]) => inner !== null).map(([key, inner]) =>
    element("tr", {}, element("th", { scope: "row" }, words(key)), element("td", {}, typeof inner === "object" && Object.keys(inner).length ? table(inner) : format(inner))));
  return element("table", {}, element("tbody", {}, ...rows));
}

function format(value) {
  if (typeof value === "number") return value !== 0 && Math.abs(value) < 1e-3 ? String(value) : value.toLocaleString("en");
  if (value === null || value === undefined) return "";
  return typeof value === "object" ? (Object.keys(value).length ? JSON.stringify(value) : "none") : String(value);
}

function showAbout(about) {
  const close = element("button", { class: "close", type: "button" }, "Close");
  close.addEventListener("click", toggleAbout);
  const { description, provenance, ...server } = about;
  const known = description ?? {};
  const licence = known.licence && Object.keys(known.licence).length ? table(known.licence) : element("p", {}, "The model states no licence.");
  const made = provenance
    ? [table(provenance)]
    : [element("p", {}, "This model has no provenance.json: what it was trained on is not recorded beside it.")];
  byId("about").replaceChildren(close, element("h2", {}, "Model"), table(server), element("h2", {}, "Licence"), licence,
    element("h2", {}, "What it was made from"), ...made, element("h2", {}, "Architecture"), table(known));
}

function toggleAbout() {
  const panel = byId("about");
  panel.hidden = !panel.hidden;
  byId("about-button").setAttribute("aria-expanded", String(!panel.hidden));
  (panel.hidden ? byId("about-button") : panel.querySelector("button"))?.focus();
}

async function load() {
  try {
    const [models, about] = await Promise.all(["/v1/models", "/about"].map(async (path) => {
      const response = await fetch(path, { headers: headers() });
      if (!response.ok) throw await refusal(response);
      return response.json();
    }));
    model = models.data[0].id;
    byId("model-name").textContent = `${model} · context of ${about.context.toLocaleString("en")} tokens`;
    byId("n").max = String(Math.min(8, about.max_concurrent));
    showAbout(about);
    say("");
  } catch (error) {
    say(error.message, "bad");
  }
}

// ---- Keys and buttons ----

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (asking === null) run();
});
byId("halt").addEventListener("click", () => asking?.abort());
byId("copy-curl").addEventListener("click", () => withRequest(asCurl, "curl"));
byId("copy-python").addEventListener("click", () => withRequest(asPython, "Python"));
byId("schema").addEventListener("input", checkSchema);
byId("schema-box").addEventListener("toggle", checkSchema);
byId("about-button").addEventListener("click", toggleAbout);
byId("key").addEventListener("change", load);
byId("shade").addEventListener("change", () => document.body.classList.toggle("shaded", byId("shade").checked));
byId("theme").addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.classList.contains("dark") || (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
  root.className = dark ? "light" : "dark";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (asking === null && form.reportValidity()) run();
  } else if (event.key === "Escape") {
    if (asking !== null) asking.abort();
    else if (!byId("about").hidden) toggleAbout();
  }
});

function withRequest(write, what) {
  try {
    copy(write(), what);
  } catch (error) {
    say("The schema is not JSON: " + error.message, "bad");
  }
}

document.body.classList.add("shaded");
load();
