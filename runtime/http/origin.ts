/** Web origins as text. */

/** Whether this is an origin as browsers send it: `https://chat.example`, no path, no wildcard. */
export function isOrigin(text: string): boolean {
  if (!/^[a-z][a-z0-9+.-]*:\/\/[^\s/?#@*]+$/.test(text)) return false;
  const url = URL.parse(text);
  // Only the web's own schemes have a normal form to compare with.
  return url !== null && (!/^https?:$/.test(url.protocol) || url.origin === text);
}
