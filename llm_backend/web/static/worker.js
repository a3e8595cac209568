// The page's service worker: it lets browsers install the page, and opens it while the server is away.
//
// It caches only files of the page. It asks the server first each time, except for files whose addresses
// name their release: these never change. While servers of two releases run, such an address may get the
// file of the other release; the server marks it as not lasting, and it is not cached. It leaves requests of the API alone: no chat, answer or key is
// ever cached.

const CACHE = "shell";

const isOfRelease = ({ url }) => url.startsWith(`${self.registration.scope}web/@`);
const isLasting = ({ headers }) => (headers.get("cache-control") ?? "").includes("immutable");

const isShellRequest = ({ method, url }) => {
  const page = self.registration.scope,
    [address] = url.split(/[?#]/);
  return method === "GET" && (address === page || address.startsWith(`${page}web/`));
};

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  if (isShellRequest(event.request)) event.respondWith(answer(event));
});

/** Returns a file of a release from the cache; another, or one that is not there, from the server. */
async function answer(event) {
  const { request } = event;
  return (isOfRelease(request) && (await findCached(request))) || fetchLatest(event);
}

/** Returns a file of the cache; undefined if it has none, or cannot be read. */
async function findCached(request) {
  const cached = await caches.match(request, { cacheName: CACHE }).catch(() => undefined);
  return cached && isCacheable(request, cached) ? cached : undefined;
}

const isCacheable = (request, response) => !isOfRelease(request) || isLasting(response);

/** Fetches a file from the server, or else from the cache. */
async function fetchLatest(event) {
  const { request } = event;
  let response;
  try {
    response = await fetch(request);
  } catch (error) {
    const cached = await findCached(request);
    if (cached) return cached;
    throw error;
  }
  if (response.ok && isCacheable(request, response)) {
    event.waitUntil(cache(request, response.clone()));
  }
  return response;
}

const isPage = ({ url }) => url.split(/[?#]/)[0] === self.registration.scope;

/** Deletes cached files of another release if the cached page is not this one. Those that both have
 *  are cached again when they are loaded next. */
async function clearForRelease(shell, request, page) {
  const cached = await shell.match(request, { ignoreSearch: true });
  if (!cached || cached.headers.get("etag") === page.headers.get("etag")) return;
  await Promise.all((await shell.keys()).map((key) => shell.delete(key)));
}

async function cache(request, response) {
  try {
    const shell = await caches.open(CACHE);
    if (isPage(request)) await clearForRelease(shell, request, response);
    await shell.put(request, response);
  } catch {
    // ignored on purpose: the disk may be full, or the browser may cache nothing; the page has its file
  }
}
