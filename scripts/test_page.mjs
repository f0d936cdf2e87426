// Uses the page at / in a real browser, as a person would, and takes screenshots.
//
// Needs `npm install playwright-core` (in a folder named by PLAYWRIGHT), a Chromium (CHROMIUM, default /usr/bin/chromium) and a
// built program. From the repository root:  PLAYWRIGHT=DIR node scripts/test_page.mjs [SCREENSHOTS]
import { spawn } from "node:child_process";
import { createRequire } from "node:module";
import assert from "node:assert/strict";
import path from "node:path";

const require = createRequire(path.resolve(process.env.PLAYWRIGHT ?? ".", "package.json"));
const { chromium } = require("playwright-core");
const shots = process.argv[2];

const program = process.env.BLACKLETTER ?? "target/release/blackletter";
const server = spawn(program, ["serve", "--port", "0", ...(process.env.MODEL ? ["--model", process.env.MODEL] : [])], { stdio: ["ignore", "ignore", "pipe"] });
const address = await new Promise((resolve, reject) => {
  let said = "";
  server.stderr.on("data", (data) => {
    said += data;
    const found = /serving on (http:\S+)\n/.exec(said);
    if (found) resolve(found[1]);
  });
  server.on("exit", () => reject(new Error("the server did not start")));
});

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
let count = 0;
try {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, permissions: ["clipboard-read", "clipboard-write"] });
  const page = await context.newPage();
  const trouble = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && trouble.push(message.text()));
  page.on("pageerror", (error) => trouble.push(String(error)));
  page.on("request", (request) => assert.ok(request.url().startsWith(address), "the page asks elsewhere: " + request.url()));
  const shot = async (name) => shots && (await page.screenshot({ path: path.join(shots, `${++count}-${name}.png`), fullPage: true }));
  const status = () => page.textContent("#status");
  const done = () => page.waitForFunction(() => document.querySelector("#status").textContent.startsWith("Done"), null, { timeout: 60000 });

  await page.goto(address);
  await page.waitForFunction(() => document.querySelector("#model-name").textContent.includes("tokens"));

  // The keyboard alone: to the prompt, write, and read the probabilities.
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.className), "skip");
  await page.focus("#prompt");
  await page.fill("#prompt", "Under this ");
  await page.fill("#seed", "5");
  await page.keyboard.press("Control+Enter");
  await done();
  assert.equal(await page.locator("article").count(), 2);
  const texts = await page.locator(".out").allTextContents();
  assert.ok(texts.every((text) => text.startsWith("Under this ") && text.length > 15), texts.join("|"));
  await page.locator(".out").first().focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowRight");
  assert.ok(await page.isVisible("#tip"), "the tip follows the arrow keys");
  assert.match(await page.textContent("#tip"), /%/);
  await shot("text");

  // The same seed, the same texts.
  await page.keyboard.press("Control+Enter");
  await done();
  assert.deepEqual(await page.locator(".out").allTextContents(), texts);

  // Pointing at a word.
  await page.locator(".out .token").nth(1).hover();
  assert.ok(await page.locator("#tip tr").count() >= 5);

  // A schema: documents with marks.
  await page.click("#schema-box summary");
  await page.fill("#schema", '{"type": "object", ');
  assert.match(await page.textContent("#schema-note"), /✗/);
  await page.fill("#schema", JSON.stringify({ type: "object", properties: { party: { type: "string", maxLength: 30 }, year: { type: "integer", minimum: 1900, maximum: 2100 }, terms: { type: "array", items: { enum: ["lease", "sale"] }, maxItems: 3 } }, required: ["party", "year", "terms"], additionalProperties: false }, null, 1));
  assert.match(await page.textContent("#schema-note"), /✓/);
  await page.fill("#n", "3");
  await page.click("#run");
  await done();
  assert.deepEqual(await page.locator(".mark").allTextContents(), Array(3).fill("✓ valid against the schema"));
  await shot("schema");
  await page.fill("#schema", '{"not": {}}');
  await page.click("#run");
  await page.waitForFunction(() => document.querySelector("#status").classList.contains("bad"));
  assert.match(await status(), /unsupported keyword: not at \/not/);
  await page.click("#schema-box summary");

  // Copies.
  await page.click("#copy-curl");
  await page.waitForFunction(() => document.querySelector("#status").textContent.includes("curl"));
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /^curl http:.*"prompt": "Under this "/s);
  await page.click("#copy-python");
  await page.waitForFunction(() => document.querySelector("#status").textContent.includes("Python"));
  assert.match(await page.evaluate(() => navigator.clipboard.readText()), /client\.completions\.create\([^]*prompt="Under this "/);

  // Stopping.
  await page.fill("#max", "1000");
  await page.fill("#temperature", "2");
  await page.fill("#n", "8");
  await page.click("#run");
  await page.waitForSelector(".out .token");
  await page.keyboard.press("Escape");
  await page.waitForFunction(() => /Stopped|Done/.test(document.querySelector("#status").textContent));

  // Answers to questions.
  await page.fill("#max", "24");
  await page.fill("#n", "1");
  await page.check("input[value=chat]");
  await page.click("#run");
  await done();
  assert.equal(await page.locator("article").count(), 1);

  // The model's panel, by keyboard.
  await page.focus("#about-button");
  await page.keyboard.press("Enter");
  assert.match(await page.textContent("#about"), /What it was made from/);
  await shot("about");
  await page.keyboard.press("Escape");
  assert.ok(!(await page.isVisible("#about")));

  // Dark, and small.
  await page.check("input[value=text]");
  await page.click("#theme");
  const dark = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await shot("other-theme");
  await page.click("#theme");
  assert.notEqual(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), dark);
  await page.setViewportSize({ width: 360, height: 740 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "nothing is wider than a small screen");
  await page.emulateMedia({ colorScheme: "dark" });
  await shot("small");

  // Every control has a name.
  const nameless = await page.evaluate(() => [...document.querySelectorAll("button, input, textarea")].filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim())).map((e) => e.id));
  assert.deepEqual(nameless, []);
  // The refused schema is the one answer that a browser logs.
  assert.deepEqual(trouble.filter((text) => !text.includes("400 (Bad Request)")), []);
  console.log("the page works");
} finally {
  await browser.close();
  server.kill();
}
