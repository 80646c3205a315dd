"""A second implementation of Socket.IO against the gateway.

Watches one job until it is completed and prints what it saw as lines of JSON: `[what, value]`.
"""

import json
import queue
import sys

import socketio

NAMESPACE = "/jobs"
PATIENCE = 20


def say(what, value):
    print(json.dumps([what, value]), flush=True)


def main(url, transport, job_id):
    client = socketio.Client(reconnection=False)
    seen = queue.Queue()
    for name in ["job:update", "job:progress", "job:completed", "job:error", "exception"]:
        client.on(name, lambda value, name=name: seen.put((name, value)), namespace=NAMESPACE)

    client.connect(
        url,
        namespaces=[NAMESPACE],
        transports=[transport],
        auth={"clientId": f"python-{job_id}"},
        wait_timeout=PATIENCE,
    )

    def ask(event, payload=None):
        return client.call(event, payload, namespace=NAMESPACE, timeout=PATIENCE)

    try:
        say("transport", client.transport())
        say("subscribed", ask("subscribe:jobs", {"jobId": job_id, "since": 0}))
        name = None
        while name != "job:completed":
            name, value = seen.get(timeout=PATIENCE)
            say(name, value)
        say("history", ask("history:jobs", {"jobId": job_id}))
        say("refused", ask("subscribe:jobs", {"jobId": ""}))
        say("unknown", ask("nonsense", {}))
        client.emit("nonsense", {}, namespace=NAMESPACE)
        name, value = seen.get(timeout=PATIENCE)
        say(name, value)
        say("everything", ask("subscribe:jobs"))
        say("left", ask("unsubscribe:jobs", {"jobId": job_id}))
    finally:
        client.disconnect()


if __name__ == "__main__":
    main(*sys.argv[1:])
