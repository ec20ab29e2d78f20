/** A client in a thread of its own: sends many requests at once and times each answer. */

export interface Answer {
  readonly status: number;
  readonly retryAfter: string | null;
  readonly code: string | null;
  /** From sending to the answer's head. */
  readonly milliseconds: number;
}

/** Requests that are on their way to the server at the same moment. */
const SOCKETS = 100;

const scope = self as unknown as DedicatedWorkerGlobalScope;

scope.onmessage = async ({ data }: MessageEvent<{ url: string; count: number }>) => {
  const { url, count } = data;
  let left = count;
  const answers: Answer[] = [];
  const body = JSON.stringify({ prompt: "Once upon a time", max_tokens: 8, temperature: 0 });
  const send = async () => {
    const began = performance.now();
    const response = await fetch(url, { method: "POST", body });
    const milliseconds = performance.now() - began;
    const json = await response.json();
    answers.push({
      status: response.status,
      retryAfter: response.headers.get("retry-after"),
      code: json.error?.code ?? null,
      milliseconds,
    });
  };
  // Who is taken waits for a slot and keeps its socket; who is refused makes room for the next.
  const lane = async () => {
    while (left-- > 0) await send();
  };
  await Promise.all(Array.from({ length: SOCKETS }, lane));
  scope.postMessage(answers);
};
