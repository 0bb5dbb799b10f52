-- The way of an event, from a verified body to a delivered alert. Every key starts with (account, livemode),
-- so the day one Postgres is not enough the tables can be distributed by account without a rewrite.

-- Every verified event, once. `created` is part of the key because partitions demand it; it never changes for an id.
CREATE TABLE events (
    account     text        NOT NULL,
    livemode    boolean     NOT NULL,
    id          text        NOT NULL,
    type        text        NOT NULL,
    created     timestamptz NOT NULL,
    api_version text        NOT NULL,
    object_id   text        NOT NULL,
    customer    text        NOT NULL,
    received_at timestamptz NOT NULL,
    payload     jsonb,
    raw         bytea,  -- only where jsonb refuses the payload (NUL, lone surrogates)
    PRIMARY KEY (account, livemode, id, created),
    CONSTRAINT events_stored_once CHECK ((payload IS NULL) <> (raw IS NULL))
) PARTITION BY RANGE (created);
CREATE INDEX events_by_time ON events (account, livemode, created);

-- What was counted, in event time: the only thing that baselines read.
CREATE TABLE rollups (
    account  text        NOT NULL,
    livemode boolean     NOT NULL,
    metric   text        NOT NULL,
    stratum  text        NOT NULL,
    currency text        NOT NULL,
    grain    smallint    NOT NULL,  -- minutes: 5 or 60
    bucket   timestamptz NOT NULL,  -- the bucket's start
    count    bigint      NOT NULL,
    amount   bigint      NOT NULL,  -- minor units
    PRIMARY KEY (account, livemode, grain, metric, bucket, stratum, currency)
) WITH (fillfactor = 70);

-- Business objects that were counted: the several events Stripe sends about one thing count once.
CREATE TABLE claims (
    account    text        NOT NULL,
    livemode   boolean     NOT NULL,
    key        text        NOT NULL,
    claimed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, livemode, key)
);
CREATE INDEX claims_by_age ON claims USING brin (claimed_at);

-- The book's first page: how much of a charge was refunded, as its refunds add up and as the charge itself says.
CREATE TABLE charges (
    account         text   NOT NULL,
    livemode        boolean NOT NULL,
    id              text   NOT NULL,
    currency        text   NOT NULL,
    refunds         int    NOT NULL,  -- refund objects seen
    refund_amount   bigint NOT NULL,  -- their sum
    totals          int    NOT NULL,  -- different totals that the charge told
    total_amount    bigint NOT NULL,  -- the largest total told
    counted         int    NOT NULL,
    counted_amount  bigint NOT NULL,
    PRIMARY KEY (account, livemode, id)
) WITH (fillfactor = 80);

CREATE TABLE accounts (
    account         text        NOT NULL,
    livemode        boolean     NOT NULL,
    first_event     timestamptz NOT NULL,  -- oldest `created` seen
    newest_event    timestamptz NOT NULL,  -- newest `created` seen: the watermark
    newest_received timestamptz NOT NULL,
    dirty_since     timestamptz,           -- news that no evaluation has seen
    evaluated_at    timestamptz,
    PRIMARY KEY (account, livemode)
) WITH (fillfactor = 70);

CREATE TABLE incidents (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account         text        NOT NULL,
    livemode        boolean     NOT NULL,
    detector        text        NOT NULL,
    metric          text        NOT NULL,
    scope           text        NOT NULL DEFAULT '',
    state           text        NOT NULL CHECK (state IN ('open', 'acked', 'resolved')),
    severity        text        NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    opened_at       timestamptz NOT NULL,
    first_breach_at timestamptz NOT NULL,
    last_breach_at  timestamptz NOT NULL,
    clear_since     timestamptz,
    resolved_at     timestamptz,
    observed        double precision NOT NULL,
    expected        double precision NOT NULL,
    "limit"         double precision NOT NULL,
    peak            double precision NOT NULL,
    told            double precision NOT NULL,  -- the observed value that people were last told
    "window"        integer     NOT NULL,  -- seconds
    why             text        NOT NULL,
    at_risk         jsonb       NOT NULL DEFAULT '[]',
    customers       integer     NOT NULL DEFAULT 0,
    CONSTRAINT incidents_resolved_at CHECK ((state = 'resolved') = (resolved_at IS NOT NULL))
);
-- Two workers can never open the same incident twice.
CREATE UNIQUE INDEX incidents_one_open ON incidents (account, livemode, detector, scope) WHERE state <> 'resolved';
CREATE INDEX incidents_by_time ON incidents (opened_at DESC, id DESC);

CREATE TABLE incident_log (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident   bigint      NOT NULL REFERENCES incidents,
    at         timestamptz NOT NULL,
    from_state text        NOT NULL,  -- '' at birth
    to_state   text        NOT NULL,
    reason     text        NOT NULL,
    who        text        NOT NULL
);
CREATE INDEX incident_log_by_incident ON incident_log (incident, id);

-- The outbox: one row is one message to one channel, and its only retry engine.
CREATE TABLE alerts (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident   bigint      REFERENCES incidents,
    channel    text        NOT NULL,
    reason     text        NOT NULL,  -- first, worse, resolved, ...
    route      text        NOT NULL,  -- why this channel
    title      text        NOT NULL,
    body       text        NOT NULL,
    state      text        NOT NULL DEFAULT 'staged' CHECK (state IN ('staged', 'sending', 'sent', 'given_up')),
    attempts   integer     NOT NULL DEFAULT 0,
    staged_at  timestamptz NOT NULL,
    next_try   timestamptz NOT NULL,
    claimed_at timestamptz,
    sent_at    timestamptz,
    error      text
);
CREATE INDEX alerts_due ON alerts (next_try) WHERE state IN ('staged', 'sending');
CREATE INDEX alerts_by_incident ON alerts (incident);

-- What could not be stored, raw, with the reason; `billingwatch quarantine retry` tries again.
CREATE TABLE quarantine (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    source         text        NOT NULL,
    received_at    timestamptz NOT NULL,
    quarantined_at timestamptz NOT NULL DEFAULT now(),
    reason         text        NOT NULL,
    body           bytea       NOT NULL,
    digest         bytea       NOT NULL GENERATED ALWAYS AS (sha256(body)) STORED,
    UNIQUE (source, digest)
);
