CREATE TABLE rtc_json_directory (
    dn VARCHAR(64) NOT NULL PRIMARY KEY,
    display_name VARCHAR(64) DEFAULT '' NOT NULL,
    genesys_agent VARCHAR(64) DEFAULT '' NOT NULL,
    skills VARCHAR(4160) DEFAULT '' NOT NULL
);
CREATE TABLE rtc_json_calls (
    call_id VARCHAR(64) NOT NULL PRIMARY KEY,
    sip_call_id VARCHAR(255) NOT NULL,
    dn VARCHAR(64) NOT NULL,
    direction VARCHAR(3) NOT NULL,
    caller VARCHAR(255) NOT NULL,
    callee VARCHAR(255) NOT NULL,
    started VARCHAR(24) NOT NULL,
    answered INTEGER NOT NULL,
    duration INTEGER NOT NULL,
    reason VARCHAR(32) NOT NULL,
    transferred_to VARCHAR(255) NOT NULL,
    transfers VARCHAR(4096) NOT NULL,
    code INTEGER NOT NULL,
    cause INTEGER NOT NULL,
    ring_after INTEGER NOT NULL,
    answer_after INTEGER NOT NULL,
    recorded INTEGER NOT NULL
);
CREATE INDEX rtc_json_calls_started ON rtc_json_calls (started);
CREATE INDEX rtc_json_calls_dn ON rtc_json_calls (dn, started);
