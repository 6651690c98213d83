"""The HTTP surface: a process of its own beside the daemon, which no load on it can hold up.

    daemon (main thread) ──fork, before any thread──► server (uvicorn, Starlette)
       │  shared memory: ages of its loops ───────────►  │   /readyz
       │  socket: what it has counted ◄──asked────────►  │   /metrics
       └── the store ◄───────────────────────────────────┘   everything else

The daemon's side is `supervisor.py`, which starts another server when one dies, and imports nothing of Starlette; the
server ends with the daemon, which it sees as the end of a socket.

A request passes, outside in (`app.py`): the security headers, the Host check, the limits, the router, and then the gate
(`gate.py`), which finds out who asks (`Principal`), whether the role is enough, and whether a browser was made to ask
by somebody else's page. Only then the endpoint is called.

**A route** is one `Endpoint` in the `routes()` of a module in `batchd/web/endpoints/`; modules are found there:

    async def runs_of(call: Call) -> Response:
        found = await call.store(queries.list_runs, RunFilter(job=call.path("job")))     # in a thread, bounded
        return call.json({"runs": found})

    def routes() -> list[Endpoint]:
        return [Endpoint("GET", "/api/v1/jobs/{job}/runs", runs_of, Access.VIEWER, summary="The runs of a job")]

An endpoint raises `Problem` (or lets a BatchdError pass) and the client gets an RFC 9457 answer. `Access` says who may:
PUBLIC (say nothing that matters there), VIEWER, OPERATOR (every write), CRON, METRICS. A test opens every route
without and with a wrong token, so a new one is covered by being there. `stream=True` is for answers without an end:
they do not count as requests at work; they end at `call.desk.stopping` (an asyncio.Event that is set at a stop).
With `document=` (see `Document` in `call.py`) a route is in the OpenAPI document; every route below /api/v1 must be.

**A page** is a route with `page=True`: whoever is not signed in is sent to /login, errors are HTML. `page(call,
"NAME.html", place, **values)` of `pages/rendering.py` renders `batchd/web/templates/NAME.html`, which escapes by
itself. A form posts urlencoded fields, read with `await call.form()`; nothing else is needed against CSRF (the gate
asks the browser where the request comes from), and scripts and styles must be files: the CSP allows no inline ones.

**A static file** lies in `batchd/web/static/` and is served below /static/ with an ETag; template: `asset("app.css")`.

Tests: `tests/support/web.py` has `surface`, a client on the app without a process, on both dialects:
`surface.get("/api/v1/jobs", as_="viewer")`; the process itself is in tests/e2e/test_web.py.
"""
