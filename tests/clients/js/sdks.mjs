// Plays one scene with a vendor's own package and prints what came of it, as JSON.
// node sdks.mjs SCENE '{"url": ..., "key": ..., "model": ..., "prompt": ...}'

import Anthropic from '@anthropic-ai/sdk';
import { Ollama } from 'ollama';
import OpenAI from 'openai';

const [scene, given] = process.argv.slice(2);
const { url, key, model, prompt } = JSON.parse(given);
const openai = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0 });
const ollama = new Ollama({ host: url, headers: { Authorization: `Bearer ${key}` } });
const messages = [{ role: 'user', content: prompt }];
const parameters = { type: 'object', properties: { city: { type: 'string' } } };
const weather = { name: 'weather', description: 'The weather of a city', parameters };

async function drained(stream) {
  const parts = [];
  for await (const part of stream) parts.push(part);
  return parts;
}

const scenes = {
  openai: async () => {
    const asked = { model, messages, temperature: 0, max_tokens: 48 };
    const whole = await openai.chat.completions.create(asked);
    const stream = openai.chat.completions.stream({
      ...asked, stream_options: { include_usage: true },
    });
    const final = await stream.finalChatCompletion();
    const told = ({ choices, usage }) => ({
      text: choices[0].message.content, finish: choices[0].finish_reason,
      tokens: usage.completion_tokens,
    });
    return { whole: told(whole), streamed: told(final) };
  },
  'openai tools': async () => {
    const calls = [];
    const tool = { ...weather, parse: JSON.parse, function: (input) => (calls.push(input), 'rainy') };
    const tools = [{ type: 'function', function: tool }];
    const runner = openai.chat.completions.runTools({ model, messages, tools, stream: true });
    return { text: await runner.finalContent(), calls };
  },
  'openai responses': async () => {
    const stream = openai.responses.stream({ model, input: prompt, max_output_tokens: 48 });
    const { id, output_text } = await stream.finalResponse();
    const items = await drained(openai.responses.inputItems.list(id));
    await openai.responses.delete(id);
    return { text: output_text, asked: items[0].content[0].text };
  },
  anthropic: async () => {
    const asked = { model, messages, max_tokens: 48, temperature: 0 };
    const whole = await anthropic.messages.create(asked);
    const final = await anthropic.messages.stream(asked).finalMessage();
    const told = ({ content, stop_reason, usage }) => ({
      text: content[0].text, finish: stop_reason, tokens: usage.output_tokens,
    });
    return { whole: told(whole), streamed: told(final) };
  },
  'anthropic tools': async () => {
    const calls = [];
    const { name, description } = weather;
    const run = (input) => (calls.push(input), 'rainy');
    const tool = { name, description, input_schema: parameters, run, parse: (input) => input };
    const runner = anthropic.beta.messages.toolRunner({
      model, messages, max_tokens: 48, tools: [tool], stream: true,
    });
    for await (const stream of runner) await drained(stream);
    const { content } = await runner.done();
    return { text: content[0].text, calls };
  },
  ollama: async () => {
    const asked = { model, messages, options: { temperature: 0, num_predict: 48 } };
    const whole = await ollama.chat({ ...asked, stream: false });
    const parts = await drained(await ollama.chat({ ...asked, stream: true }));
    const last = parts.at(-1);
    return {
      whole: { text: whole.message.content, finish: whole.done_reason, tokens: whole.eval_count },
      streamed: {
        text: parts.map((part) => part.message.content).join(''), finish: last.done_reason,
        tokens: last.eval_count,
      },
    };
  },
  'ollama tools': async () => {
    const tools = [{ type: 'function', function: weather }];
    const { message } = await ollama.chat({ model, messages, tools });
    const calls = message.tool_calls.map((call) => call.function.arguments);
    const said = [...messages, message, { role: 'tool', content: 'rainy', tool_name: 'weather' }];
    const parts = await drained(await ollama.chat({ model, messages: said, tools, stream: true }));
    return { text: parts.map((part) => part.message.content).join(''), calls };
  },
  'ollama models': async () => ({
    names: (await ollama.list()).models.map((model) => model.name),
    capabilities: (await ollama.show({ model })).capabilities,
    vectors: (await ollama.embed({ model, input: ['a', 'b'] })).embeddings.length,
    running: (await ollama.ps()).models.map((model) => model.name),
  }),
};

try {
  console.log(JSON.stringify(await scenes[scene]()));
} catch (error) {
  const { name, message, status, status_code: code } = error;
  console.log(JSON.stringify({ error: { name, message, status: status ?? code } }));
}
