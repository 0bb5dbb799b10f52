"""What a user would write without this project: the plain receivers that ours is held against."""

import os

from redis import Redis
from rq import Queue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from stripe import SignatureVerificationError, WebhookSignature

from bench.naive import QUEUE, insert_event


def verify_only() -> Starlette:
    """Verify with Stripe's library, answer 200, keep nothing: the ceiling of any receiver."""
    secret = os.environ["STRIPE_WEBHOOK_SECRET"]

    async def webhook(request: Request) -> Response:
        payload = await request.body()
        try:
            WebhookSignature.verify_header(payload.decode(), request.headers["stripe-signature"], secret, 300)
        except (SignatureVerificationError, KeyError, ValueError):
            return JSONResponse({"error": "bad_signature"}, 400)
        return JSONResponse({"received": True})

    return Starlette(routes=[Route("/webhook", webhook, methods=["POST"])])


def enqueue_each() -> Starlette:
    """Verify with Stripe's library, enqueue one RQ job, answer 200."""
    secret = os.environ["STRIPE_WEBHOOK_SECRET"]
    queue = Queue(QUEUE, connection=Redis.from_url(os.environ["REDIS_URL"]))

    async def webhook(request: Request) -> Response:
        payload = await request.body()
        try:
            WebhookSignature.verify_header(payload.decode(), request.headers["stripe-signature"], secret, 300)
        except (SignatureVerificationError, KeyError, ValueError):
            return JSONResponse({"error": "bad_signature"}, 400)
        queue.enqueue(insert_event, payload)
        return JSONResponse({"received": True})

    return Starlette(routes=[Route("/webhook", webhook, methods=["POST"])])
