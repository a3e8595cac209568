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
  if (isOfShell(event.request)) event.respondWith(latest(event.request));
});

/** The file of the server, or else the one that it sent last. */
async function latest(request) {
  const cache = await caches.open(SHELL);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch (error) {
    const kept = await cache.match(request);
    if (kept) return kept;
    throw error;
  }
}
