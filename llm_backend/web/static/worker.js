// The page's service worker: it lets the page be installed, and opens it while the server is away.
//
// It keeps files of the page alone, and asks the server first each time. Requests of the API pass it
// by: no chat, answer or key is ever kept.

const SHELL = "shell";

const isOfShell = ({ method, url }) => {
  const { origin, pathname } = new URL(url);
  const isFile = pathname === "/" || pathname.startsWith("/web/");
  return method === "GET" && origin === location.origin && isFile;
};

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  if (isOfShell(event.request)) event.respondWith(latest(event));
});

/** The file of the server, or else the one that it sent last. */
async function latest(event) {
  const { request } = event;
  let response;
  try {
    response = await fetch(request);
  } catch (error) {
    const kept = await caches.match(request, { cacheName: SHELL });
    if (kept) return kept;
    throw error;
  }
  if (response.ok) event.waitUntil(keep(request, response.clone()));
  return response;
}

async function keep(request, response) {
  try {
    await (await caches.open(SHELL)).put(request, response);
  } catch {
    // ignored on purpose: the disk may be full, or the browser may keep nothing; the page has its file
  }
}
