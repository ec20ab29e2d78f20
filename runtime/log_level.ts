/** How much is logged: apart from the log, which the command line's help does not need. */

/** Each level includes those after it. */
export const LOG_LEVELS = ["debug", "info", "warning", "error"] as const;
export type LogLevel = typeof LOG_LEVELS[number];
