-- What detection remembers beside the counts: what an account's baselines are, what is open of it, what people said.

-- What an account's judgement goes on from: incidents in the making, floors, masked spans (MessagePack), and whether
-- events told something about days that baselines had learnt from already.
ALTER TABLE accounts ADD COLUMN life bytea, ADD COLUMN rewritten_at timestamptz;

-- One incident may have several signals; `number` counts an account's incidents, evidence is what was compared.
ALTER TABLE incidents ADD COLUMN number integer NOT NULL DEFAULT 0, ADD COLUMN evidence jsonb NOT NULL DEFAULT '{}';

-- What was learnt at the end of each local day: `forecast` is what an evaluation reads, `archive` the hours it came from.
CREATE TABLE baselines (
    account       text        NOT NULL,
    livemode      boolean     NOT NULL,
    learned_until timestamptz NOT NULL,  -- the end of the newest day (or part of one) that was learnt from
    forecast      bytea       NOT NULL,
    archive       bytea       NOT NULL,
    PRIMARY KEY (account, livemode)
);

-- Successful payments of the last hours by who paid how much: the same twice within minutes is one too many.
CREATE TABLE payers (
    account  text        NOT NULL,
    livemode boolean     NOT NULL,
    key      text        NOT NULL,  -- customer or card fingerprint, amount, currency
    attempt  text        NOT NULL,  -- the payment intent
    created  timestamptz NOT NULL,
    invoiced boolean     NOT NULL,
    PRIMARY KEY (account, livemode, key, attempt)
);
CREATE INDEX payers_by_age ON payers USING brin (created);

-- What people said about spans of time: a deploy, an event that was planned, the day from which all is different.
CREATE TABLE markers (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account   text        NOT NULL,
    livemode  boolean     NOT NULL,
    kind      text        NOT NULL CHECK (kind IN ('deploy', 'expected', 'new_normal')),
    starts_at timestamptz NOT NULL,
    ends_at   timestamptz NOT NULL,
    text      text        NOT NULL,
    who       text        NOT NULL,
    made_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT markers_span CHECK (ends_at >= starts_at)
);
CREATE INDEX markers_by_account ON markers (account, livemode, starts_at);
