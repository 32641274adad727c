/** Port of the server where the address of the page does not say. */
const DEFAULT_PORT = 8444;

/** `ws` or `server` in the page's address: a whole address or only the port. */
export function serverAddress() {
  const parameters = new URLSearchParams(location.search);
  const given = parameters.get('ws') ?? parameters.get('server') ?? `${DEFAULT_PORT}`;
  return /^\d+$/.test(given) ? `wss://${location.hostname || '127.0.0.1'}:${given}/` : given;
}
