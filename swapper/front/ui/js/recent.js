/* The last requests, put together from what the server says of them. Pure: no page, no clock. */

/** All of them, oldest first, out of those of `before` and a state of the server's, which has the ones that
 * are new since then; it has them all where nothing was known before. */
export function recent(before, { requests, requests_since: since, oldest_request: oldest, capture }) {
  const known = before.filter(({ number }) => number >= oldest && number <= since);
  const keptFrom = capture?.oldest ?? Infinity;
  return [...known.map((request) => asOf(request, keptFrom)), ...requests];
}

function asOf(request, keptFrom) {
  return request.is_kept && request.number < keptFrom ? { ...request, is_kept: false } : request;
}
