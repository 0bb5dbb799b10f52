-- What happens between an incident and a person: what is sent when and why, the proof that it arrived, the answers.

-- A row of the outbox is one thing to be told about one incident to one channel. Its words are made when it is sent, of
-- the incident as it is then; `verdict` is the newest decision about it with its reason.
ALTER TABLE alerts
    ALTER COLUMN title SET DEFAULT '',
    ALTER COLUMN body SET DEFAULT '',
    ADD COLUMN verdict   text NOT NULL DEFAULT '',
    ADD COLUMN cause     bigint,       -- the incident that explains this one, while that holds it back
    ADD COLUMN content   jsonb,        -- of what is about no incident: what it says
    ADD COLUMN first_try timestamptz,  -- trying ends a day after it
    ADD COLUMN delivery  bigint,       -- the newest
    DROP CONSTRAINT alerts_state_check,
    ADD CONSTRAINT alerts_state_check CHECK (state IN ('staged', 'sending', 'sent', 'given_up', 'dropped'));
CREATE INDEX alerts_by_channel ON alerts (channel, next_try) WHERE state IN ('staged', 'sending');
CREATE INDEX alerts_by_delivery ON alerts (delivery) WHERE delivery IS NOT NULL;

-- One attempt to send one message, of one or many alerts, to one channel.
CREATE TABLE deliveries (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    channel    text        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('alert', 'summary', 'digest', 'test')),
    account    text        NOT NULL DEFAULT '',  -- whose; '' where it speaks of several, or of none
    livemode   boolean     NOT NULL DEFAULT true,
    urgent     boolean     NOT NULL DEFAULT false,  -- it spoke of something critical
    alerts     bigint[]    NOT NULL,             -- which
    title      text        NOT NULL,
    body       text        NOT NULL,             -- as plain text, without the signed links
    claimed_at timestamptz NOT NULL,
    ended_at   timestamptz,
    outcome    text        CHECK (outcome IN ('sent', 'failed', 'refused', 'unknown')),  -- NULL while under way
    error      text        NOT NULL DEFAULT '',
    message    bigint      REFERENCES deliveries,  -- the first of the same alerts together; NULL for the first
    repeats    bigint      REFERENCES deliveries,  -- it may have arrived already as that one
    CONSTRAINT deliveries_ended CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX deliveries_by_channel ON deliveries (channel, claimed_at DESC);
CREATE INDEX deliveries_by_alert ON deliveries USING gin (alerts);

CREATE TABLE silences (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    matchers  jsonb       NOT NULL,  -- label -> what it must be; all must hold
    starts_at timestamptz NOT NULL,
    ends_at   timestamptz,           -- NULL: until somebody ends it
    recurs    text        NOT NULL DEFAULT '',  -- "sat-sun, mon-fri 22:00-06:00": only then, in the account's zone
    why       text        NOT NULL,
    who       text        NOT NULL,
    made_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT silences_span CHECK (ends_at >= starts_at)
);
CREATE INDEX silences_by_end ON silences (ends_at);

-- What people said an incident was.
CREATE TABLE feedback (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    incident bigint      NOT NULL REFERENCES incidents,
    verdict  text        NOT NULL CHECK (verdict IN ('confirmed', 'expected', 'false_alarm', 'new_normal')),
    note     text        NOT NULL DEFAULT '',
    who      text        NOT NULL,
    at       timestamptz NOT NULL
);
CREATE INDEX feedback_by_incident ON feedback (incident, id);

-- Everything that a person did, whichever way.
CREATE TABLE audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL,
    who     text        NOT NULL,
    act     text        NOT NULL,  -- ack, resolve, snooze, feedback, silence.add, silence.end, mark.add, mark.remove
    subject text        NOT NULL,  -- "incident 12", "silence 3", "marker 7"
    detail  text        NOT NULL DEFAULT ''
);

-- Keys that this installation made for itself.
CREATE TABLE keys (
    name    text        PRIMARY KEY,
    value   bytea       NOT NULL,
    made_at timestamptz NOT NULL DEFAULT now()
);

-- Signed links that were used: each works once.
CREATE TABLE used_links (
    nonce   text        NOT NULL,
    act     text        NOT NULL,
    used_at timestamptz NOT NULL,
    PRIMARY KEY (nonce, act)
);

-- Digests that were made: each day and week once.
CREATE TABLE digests (
    account text NOT NULL,  -- '' of all together
    kind    text NOT NULL CHECK (kind IN ('daily', 'weekly')),
    day     date NOT NULL,  -- the local day on which it was due
    made_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (account, kind, day)
);
