// Follow topics of durable_notify. follow() returns a function that stops it.
//
// url: that of /events, with ?topic=...; it may be of another website.
// onMessage(message): {id, topic, key, payload, headers, published_at}
// onGap(gap): retention may have removed messages: fetch again what the page shows
// onReset(reset): the place is of another database: fetch again what the page shows
// silence: after so many milliseconds without a sign of life, connect again
export function follow(url, { onMessage, onGap, onReset, after = null, silence = 40000 }) {
  let source, timer, stopped = false, pause = 1000;

  function connect() {
    const address = new URL(url, document.baseURI);
    if (after) address.searchParams.set("after", after);
    source = new EventSource(address, { withCredentials: true });
    const on = (name, handle) => source.addEventListener(name, (event) => {
      pause = 1000;
      alive();
      if (handle) handle(JSON.parse(event.data));
      after = event.lastEventId || after;
    });
    on("place");  // where it is before any message: it may have to connect again before one comes
    on("message", onMessage);
    on("gap", onGap);
    on("reset", onReset);
    on("beat");
    // A browser gives up after a status that is not 200, such as 503.
    source.onerror = () => { if (source.readyState === EventSource.CLOSED) again(); };
    alive();
  }

  function alive() {
    clearTimeout(timer);
    timer = setTimeout(again, silence);
  }

  function again() {
    clearTimeout(timer);
    source.close();
    if (!stopped) timer = setTimeout(connect, pause = Math.min(2 * pause, 30000));
  }

  connect();
  return () => { stopped = true; again(); };
}
