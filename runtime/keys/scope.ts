/** What a key may do. */

/** "infer": models and tokens. "metrics": /metrics. "admin": everything. */
export const SCOPES = ["infer", "admin", "metrics"] as const;
export type Scope = typeof SCOPES[number];
