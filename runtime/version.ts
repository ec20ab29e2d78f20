/** Of the program; CHANGELOG.md says what is in it. */
export const VERSION = "0.1.0";
