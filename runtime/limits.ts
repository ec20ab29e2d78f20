/**
 * Every bound of Kedge: a named constant with its unit last and the reason beside it. What comes
 * from a file or a client is compared with its bound before anything is allocated for it.
 */

const MiB = 1024 * 1024;

// Model folders: small JSON files.

/** config.json, generation_config.json: published ones are below 4 KB. */
export const MAX_CONFIG_FILE_BYTES = 1 * MiB;
/** tokenizer_config.json: published 3.7 KB; others embed a chat template. */
export const MAX_TOKENIZER_CONFIG_FILE_BYTES = 8 * MiB;
export const MAX_TEMPLATE_FILE_BYTES = 1 * MiB;
/** model.safetensors.index.json: 2.0 MB for the 20,493 tensors of the 48B checkpoint. */
export const MAX_INDEX_FILE_BYTES = 32 * MiB;
/** Nesting of any JSON of a model folder: the deepest real one has 5 levels. */
export const MAX_JSON_DEPTH_LEVELS = 32;
/** Values in one JSON text: 65,536 tensors of a safetensors header have about 10 each. */
export const MAX_JSON_VALUES = 1_000_000;

// Model folders: weights.

/** Header of one safetensors file: the 48B model's 20,493 tensors need 2.4 MB in all its files. */
export const MAX_SAFETENSORS_HEADER_BYTES = 32 * MiB;
/** Tensors in one safetensors file: the 48B model with scales has 41,000 in all its files. */
export const MAX_SAFETENSORS_TENSORS = 65_536;
/** Dimensions of a tensor: the model's largest rank is 4. */
export const MAX_TENSOR_DIMENSIONS = 8;
/** Characters of a tensor's name: the longest real one has 70. */
export const MAX_TENSOR_NAME_CHARACTERS = 256;
/** Files of one checkpoint: published ones have 20. */
export const MAX_SHARDS = 1024;
/** Weights that a config.json may ask for: ten times the 48B model's 20,493. */
export const MAX_MODEL_TENSORS = 262_144;
/** Read buffer of the loader, reused; large enough that the disk and not the calls set the pace. */
export const LOAD_PIECE_BYTES = 4 * MiB;
/** Weights above which a thread of its own reads ahead: it takes some 50 ms to start. */
export const READ_AHEAD_WEIGHT_BYTES = 512 * MiB;
/** A reading thread that gives nothing for this long is given up: network disks stall that long. */
export const READ_AHEAD_MS = 60_000;
/**
 * Weights that are kept as a file has them where --memory says nothing: WebGPU doesn't tell how
 * much a device has, and cards of 24 GB are common. Larger models become q8 or q4.
 */
export const GPU_WEIGHT_BYTES_DEFAULT = 16 * 1024 * MiB;
/** Weights that fit the cpu device's 4 GiB of wasm32 memory beside its pools. */
export const CPU_WEIGHT_BYTES_MAX = 3 * 1024 * MiB;
/** Bytes of one file of a synthetic checkpoint: published ones have 5 GB. */
export const SYNTH_SHARD_BYTES = 5_000_000_000;
/** Deviation of the logarithm of synthetic experts' shares: some busy, none idle. */
export const SYNTH_SKEW_DEFAULT = 0.5;
/** At 3 a few get nearly all tokens. */
export const SYNTH_SKEW_MAX = 3;
/** Smallest side of an fp8 scale block: keeps the scales below 1/16 of their matrix's bytes. */
export const MIN_SCALE_BLOCK_ELEMENTS = 8;

// Model folders: sizes in config.json. Each leaves a factor of 8 or more over the 48B model.

/** Rows of embedding and head. */
export const MAX_VOCABULARY_TOKENS = 2 ** 21;
/** Any width of a matrix: hidden, feed-forward, heads x head size. */
export const MAX_WIDTH_CHANNELS = 2 ** 18;
/** Layers. */
export const MAX_LAYERS = 1024;
/** Heads of one mixer. */
export const MAX_HEADS = 4096;
/** Channels of one head, and of the MLA latent. */
export const MAX_HEAD_CHANNELS = 8192;
/** Taps of the short convolution. */
export const MAX_CONVOLUTION_TAPS = 64;
/** Routed experts of a layer. */
export const MAX_EXPERTS = 4096;
/** Tokens of context a model may declare. */
export const MAX_CONTEXT_TOKENS = 2 ** 24;

// Model folders: tokenizer.

/** tiktoken.model: 2.8 MB for 163,584 tokens. */
export const MAX_TIKTOKEN_FILE_BYTES = 64 * MiB;
/** Characters of a special token's text. */
export const MAX_SPECIAL_TOKEN_CHARACTERS = 256;
/** Stop ids in generation_config.json. */
export const MAX_EOS_IDS = 64;

// Requests: bodies.

/** A request's body: about two million tokens of English, twice the longest context. */
export const MAX_BODY_BYTES = 8 * MiB;
/** Nesting of a request's JSON: tool schemas of real programs stay below 20. */
export const MAX_BODY_DEPTH_LEVELS = 64;

// Requests: fields.

/** Messages of a conversation. */
export const MAX_MESSAGES = 16_384;
/** Characters of a name, a tool call's id or a tool's name. */
export const MAX_NAME_CHARACTERS = 256;
/** Characters of a JSON schema that an answer must follow; schemas of real programs stay below. */
export const MAX_SCHEMA_CHARACTERS = 262_144;
/**
 * Keys of such a schema at all depths, and its `$ref`s: the stack holds 5,000 and 2,000; a token
 * under 4,096 optional properties takes 45 ms.
 */
export const MAX_SCHEMA_KEYS = 2_048;
export const MAX_SCHEMA_REFERENCES = 1_000;
/** Lines of a grammar: a chain of as many rules must fit the stack. */
export const MAX_GRAMMAR_LINES = 1_000;
/** Characters of a regular expression or a grammar that an answer must follow. */
export const MAX_GRAMMAR_CHARACTERS = 65_536;
/** Texts of which an answer must be one, and the characters of each. */
export const MAX_CHOICE_STRINGS = 1_024;
export const MAX_CHOICE_CHARACTERS = 4_096;
/** Characters of a tool call's header, `functions.NAME:INDEX`; what is longer was text. */
export const MAX_CALL_HEADER_CHARACTERS = 1_024;
/** Text parts of one message, and tool calls of one message. */
export const MAX_PARTS = 1024;
/** Tools of a request: all of them are in the prompt. */
export const MAX_TOOLS = 512;
/** Prompts in one completions request. */
export const MAX_PROMPTS = 256;
/** Answers to one prompt. */
export const MAX_CHOICES = 64;
/** Token ids in one prompt or in one detokenize request: twice the longest context of the 48B. */
export const MAX_PROMPT_TOKENS = 2 ** 21;
/** max_tokens: whatever a context can hold; what the model's own can't is cut to fit. */
export const MAX_COMPLETION_TOKENS = MAX_CONTEXT_TOKENS;
/** max_tokens of a completions request that gives none, as in OpenAI's API. */
export const DEFAULT_COMPLETION_TOKENS = 16;
/** temperature, as in OpenAI's API. */
export const MAX_TEMPERATURE = 2;
/** top_k: larger than any vocabulary, where it keeps all tokens. */
export const MAX_TOP_K_TOKENS = MAX_VOCABULARY_TOKENS;
/** logit_bias, as in OpenAI's API. */
export const MAX_LOGIT_BIAS = 100;
/** frequency_penalty and presence_penalty, as in OpenAI's API. */
export const MAX_PENALTY = 2;
/** repetition_penalty: above 0, as logits are divided by it; common values are 1 to 1.5. */
export const MIN_REPETITION_PENALTY = 0.01;
export const MAX_REPETITION_PENALTY = 2;
/** logprobs and top_logprobs, as in OpenAI's chat API. */
export const MAX_LOGPROBS = 20;
/** stop_token_ids of a request, beside the model's own. */
export const MAX_STOP_TOKEN_IDS = 64;
/** Stop strings of a request. */
export const MAX_STOPS = 16;
/** Characters (UTF-16 units) of one stop string: that much text may be held back. */
export const MAX_STOP_CHARACTERS = 256;

// Requests: time.

/** Characters encoded between two looks at the clock: well below 1 ms. */
export const ENCODE_SLICE_CHARACTERS = 4096;
/** How long a streaming answer waits for the engine to refuse before it commits to status 200. */
export const STREAM_STATUS_WAIT_MS = 250;

// Engine.

/** Rows of one step on a CPU: a prompt's piece delays other streams by one step at most. */
export const STEP_ROWS = 128;
/**
 * Rows of one step on a GPU: a mixture of 256 experts is read whole for a few hundred rows, so that
 * longer pieces cost little more.
 */
export const GPU_STEP_ROWS = 2_048;
/** Rows of a step beside sequences that decode, which wait for it. */
export const SHARED_STEP_ROWS = 256;
/** Sequences that run at once unless told otherwise. */
export const SLOTS_DEFAULT = 8;
/** Sequences that may be asked for: 41 MiB of state each in the 48B model. */
export const SLOTS_MAX = 256;
/** Tokens of one page of the latent cache. */
export const PAGE_TOKENS = 64;
/** Context of one sequence unless told otherwise: 1 GB of latents in the 48B model. */
export const CONTEXT_TOKENS_DEFAULT = 131_072;
/** Pages beside one whole context: tokens for each further slot; longer ones preempt. */
export const POOL_TOKENS_PER_SLOT = 4_096;
/** Logits of one step: log-probabilities of a prompt take more steps instead of more memory. */
export const LOGIT_BYTES_MAX = 64 * MiB;
/** Requests that may wait for a slot unless told otherwise. */
export const QUEUE_REQUESTS_DEFAULT = 256;
/** Requests that may be asked to wait: each may hold a body of some MB. */
export const QUEUE_REQUESTS_MAX = 16_384;
/** Prompt tokens that may run and wait unless one request alone has more: 8 MB as u32. */
export const QUEUE_TOKENS_MAX = 2 ** 21;
/** --request-timeout: a day; longer ones are as good as none. */
export const REQUEST_SECONDS_MAX = 86_400;
/** Bytes that --memory may ask for: 16 TiB. */
export const MAX_MEMORY_BYTES = 2 ** 44;
/** Tokens that penalties look back on, prompt and output together. */
export const PENALTY_WINDOW_TOKENS = 15_360;
/** Ids of one logit_bias: OpenAI's API takes 300. */
export const MAX_LOGIT_BIASES = 1_024;
/** Events of one stream that wait for its reader: 64 KiB of text events; then it pauses. */
export const PENDING_EVENTS_MAX = 256;
/** Tokens without a choice that one step adds to a text: a reader is behind at 256 events. */
export const MAX_FORCED_TOKENS = 64;
/** A reader this late with its next event is cut off. */
export const SLOW_READER_MS = 30_000;
/** A busy Worker that says nothing for this long is stuck; a step takes well below a second. */
export const WATCHDOG_MS = 10_000;
/** A software adapter gets this many times longer: a step may take it 10 s on a busy machine. */
export const WATCHDOG_SOFTWARE_FACTOR = 12;
/** An engine that dies this often within DEATHS_WINDOW_MS is not started again. */
export const DEATHS_MAX = 3;
export const DEATHS_WINDOW_MS = 60_000;

/** Threads of the cpu device: more would wait for memory, and each has scratch of its own. */
export const MAX_CPU_THREADS = 16;

// Command line.

/** One file of the test suite: the slowest ones run whole models on a software adapter. */
export const TEST_FILE_MS = 900_000;
/** The look for a WebGPU adapter: drivers that start slowly need seconds. */
export const ADAPTER_PROBE_MS = 60_000;

// Bench.

/** States and latents that `kedge bench` makes unless --memory leaves more. */
export const BENCH_POOL_BYTES_DEFAULT = 16 * 1024 * MiB;
/** The same on the cpu device, whose memory ends at 4 GiB. */
export const BENCH_CPU_POOL_BYTES_MAX = 768 * MiB;
/** Sequences of one step that may be measured. */
export const BENCH_BATCH_MAX = SLOTS_MAX;
/** Seconds of one measurement. */
export const BENCH_SECONDS_MAX = 600;

// Server: door.

/** URL of a request: no route has parameters that long. Deno itself refuses above 64 KB. */
export const MAX_URL_CHARACTERS = 8 * 1024;
/** Names and values of a request's headers: browsers' and SDKs' stay below 4 KB. */
export const MAX_HEADER_BYTES = 16 * 1024;
/** How long a request's body may take to arrive: MAX_BODY_BYTES at 2.2 Mbit/s. */
export const BODY_READ_MS = 30_000;
/** Tuning file: with every number it has 1 KB. */
export const MAX_TUNING_FILE_BYTES = 64 * 1024;
/** Any number of a tuning file: WebGPU's limit of workgroups a dimension. */
export const TUNING_COUNT_MAX = 65_535;
/** Key file: a key takes about 200 bytes. */
export const MAX_KEY_FILE_BYTES = 1 * MiB;
/** Keys of one file: every request is compared with all of them. */
export const MAX_KEYS = 1024;
/** Seconds that a server that was asked to end waits for running requests unless told otherwise. */
export const DRAIN_SECONDS_DEFAULT = 30;
export const DRAIN_SECONDS_MAX = 3_600;
/** How often the server looks whether the engine has failed for good. */
export const FAILURE_LOOK_MS = 250;
/** How long answers may still go out after the engine has failed for good. */
export const FAILURE_GRACE_MS = 1_000;

// Server: streams.

/** Longest time that one request holds the thread which answers all others. */
export const SLICE_MS = 4;
/** A stream without an event for this long gets a comment: proxies cut silent connections. */
export const KEEP_ALIVE_MS = 10_000;
/** Characters of one write of a stream: events that are ready together go out together. */
export const STREAM_WRITE_CHARACTERS = 16 * 1024;
/** Bytes of a body looked at between two looks at the clock: well below 1 ms. */
export const BODY_SLICE_BYTES = 128 * 1024;
/** Items of a list written between two looks at the clock: well below 1 ms. */
export const SLICE_ITEMS = 64;
/** Keys of one object of a tool: they are sorted at once, in about 3 ms. */
export const MAX_TOOL_KEYS = 4_096;
/** Characters of an answer's JSON that are written before any are sent. */
export const ANSWER_PIECE_CHARACTERS = 64 * 1024;
/** Fields of all objects of a body: the parser takes 0.1 s for them in one object. */
export const MAX_BODY_FIELDS = 131_072;
