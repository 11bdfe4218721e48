// OpenAI's client for JavaScript: the turns of ../turns.py, whose facts are in the JSON file of the second argument.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import OpenAI from "openai";

const [url, facts] = [process.argv[2], JSON.parse(readFileSync(process.argv[3], "utf8"))];
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0, timeout: 60_000 });
const tool = (each) => ({ type: "function", function: each });
const body = (content) => ({
  model: "any",
  messages: [{ role: "user", content }],
  temperature: 0,
  max_tokens: 96,
});

async function ask(content, more = {}) {
  const completion = await client.chat.completions.create({ ...body(content), ...more });
  return completion.choices[0].message;
}

function checkCalls(message, ...people) {
  const found = (message.tool_calls ?? []).map((call) => [call.function.name, JSON.parse(call.function.arguments)]);
  assert.deepEqual(found, people.map((name) => ["phone", { name }]));
}

async function untilIdle() {
  const deadline = Date.now() + 5_000;
  while (Date.now() < deadline) {
    if ((await (await fetch(`${url}/metrics`)).text()).includes("\nmm35_requests_running 0.0")) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.fail("the answer still runs after it was left");
}

const turns = {
  async plain() {
    assert.equal((await ask(facts.opposite)).content, "cold");
  },
  async streamed() {
    const stream = client.chat.completions.stream(body(facts.opposite));
    assert.equal(await stream.finalContent(), "cold");
  },
  async tools_auto() {
    checkCalls(await ask(facts.callOne, { tools: [tool(facts.phone)] }), "Clara");
  },
  async tools_required() {
    checkCalls(await ask(facts.callOne, { tools: [tool(facts.phone)], tool_choice: "required" }), "Clara");
  },
  async tools_named() {
    const tool_choice = { type: "function", function: { name: "phone" } };
    checkCalls(await ask(facts.callOne, { tools: [tool(facts.phone), tool(facts.weather)], tool_choice }), "Clara");
  },
  async tools_parallel() {
    const tools = [tool(facts.phone)];
    checkCalls(await ask(facts.callTwo, { tools }), "Yara", "Clara");
    const stream = client.chat.completions.stream({ ...body(facts.callTwo), tools });
    checkCalls(await stream.finalMessage(), "Yara", "Clara");
  },
  async json_schema() {
    const json_schema = { name: "place", schema: facts.citySchema, strict: true };
    const message = await ask(facts.json, { response_format: { type: "json_schema", json_schema } });
    assert.deepEqual(JSON.parse(message.content), facts.city);
  },
  async image() {
    const parts = [
      { type: "image_url", image_url: { url: facts.redUrl } },
      { type: "text", text: facts.colour },
    ];
    assert.equal((await ask(parts)).content, "red");
  },
  async thinking() {
    const message = await ask(facts.sum, { reasoning_effort: "high" });
    assert.equal(message.content, "87");
    assert.ok(message.reasoning_content);
  },
  async cancel() {
    const endless = { ...body(facts.opposite), max_tokens: 8000, ignore_eos: true, stream: true };
    for await (const _ of await client.chat.completions.create(endless)) break;
    await untilIdle();
  },
  async error() {
    await assert.rejects(ask(facts.tooLong), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.code, "context_length_exceeded");
      return true;
    });
  },
};

for (const [name, turn] of Object.entries(turns)) {
  await turn();
  console.log(`ok ${name}`);
}
