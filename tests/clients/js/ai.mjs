// Plays one scene with Vercel's AI SDK and prints what came of it, as JSON.
// node ai.mjs SCENE '{"url": ..., "key": ..., "provider": ..., "model": ...}'

import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import {
  embedMany, generateText, jsonSchema, Output, stepCountIs, streamText, tool,
} from 'ai';

const [scene, given] = process.argv.slice(2);
const { url, key, provider, model: name, prompt } = JSON.parse(given);
const about = { baseURL: `${url}/v1`, apiKey: key };
const compatible = createOpenAICompatible({ name: 'swapper', includeUsage: true, supportsStructuredOutputs: true, ...about });

const models = {
  chat: () => compatible(name),
  completion: () => compatible.completionModel(name),
  responses: () => createOpenAI(about).responses(name),
  messages: () => createAnthropic(about)(name),
};
const asked = { model: models[provider](), prompt, maxRetries: 0, maxOutputTokens: 64 };

const weather = tool({
  description: 'The weather of a city',
  inputSchema: jsonSchema({
    type: 'object',
    properties: { city: { type: 'string', maxLength: 12 } },
    required: ['city'],
    additionalProperties: false,
  }),
  execute: async () => 'rainy',
});
const person = jsonSchema({
  type: 'object',
  properties: { name: { enum: ['Ann', 'Bo'] }, age: { type: 'integer', minimum: 0, maximum: 99 } },
  required: ['name', 'age'],
  additionalProperties: false,
});

const warned = [];
globalThis.AI_SDK_LOG_WARNINGS = ({ warnings }) => warned.push(...warnings);

const told = async (result) => ({
  text: await result.text,
  reasoning: (await result.reasoningText) ?? null,
  finish: await result.finishReason,
  usage: await result.usage,
});

async function read(result) {
  const parts = [];
  for await (const part of result.fullStream) {
    if (part.type === 'error') throw part.error;
    parts.push(part.type);
  }
  return { ...(await told(result)), parts };
}

const shows = { openai: { reasoningSummary: 'auto', forceReasoning: true } };
const agent = {
  ...asked, tools: { weather }, stopWhen: stepCountIs(3), providerOptions: shows,
};
const steps = async (result) =>
  (await result.steps).map((step) => ({
    calls: step.toolCalls.map((call) => ({ name: call.toolName, input: call.input })),
    finish: step.finishReason,
  }));

const scenes = {
  text: async () => ({
    whole: await told(await generateText({ ...asked, temperature: 0 })),
    streamed: await read(streamText({ ...asked, temperature: 0, onError() {} })),
  }),
  agent: async () => {
    const whole = await generateText(agent);
    const streamed = streamText({ ...agent, onError() {} });
    const heard = await read(streamed);
    return {
      whole: { ...(await told(whole)), steps: await steps(whole) },
      streamed: { ...heard, steps: await steps(streamed) },
    };
  },
  forced: async () => {
    const result = streamText({
      ...asked, tools: { weather: { ...weather, execute: undefined } }, toolChoice: 'required',
      onError() {},
    });
    return { ...(await read(result)), steps: await steps(result) };
  },
  object: async () => {
    const output = Output.object({ schema: person });
    const whole = await generateText({ ...asked, output });
    const streamed = streamText({ ...asked, output, onError() {} });
    await streamed.consumeStream();
    return { people: [whole.output, await streamed.output] };
  },
  vectors: async () => {
    const model = compatible.textEmbeddingModel(name);
    return embedMany({ model, values: ['one', 'two', 'one'], maxRetries: 0 });
  },
  left: async () => {
    const controller = new AbortController();
    const result = streamText({ ...asked, abortSignal: controller.signal, onError() {} });
    let text = '';
    for await (const part of result.fullStream) {
      if (part.type === 'text-delta') text += part.text;
      if (text) controller.abort();
    }
    return { text };
  },
};

try {
  console.log(JSON.stringify({ ...(await scenes[scene]()), warned }));
} catch (error) {
  const { name, message, statusCode, isRetryable, data } = error;
  console.log(JSON.stringify({ error: { name, message, statusCode, isRetryable, data } }));
}
