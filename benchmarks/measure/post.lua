-- What wrk sends: one small job per request.
wrk.method = "POST"
wrk.body = '{"type":"noop","payload":{"i":1}}'
wrk.headers["Content-Type"] = "application/json"
