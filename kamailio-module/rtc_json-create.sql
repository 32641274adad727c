CREATE TABLE rtc_json_directory (
    dn VARCHAR(64) NOT NULL PRIMARY KEY,
    display_name VARCHAR(64) DEFAULT '' NOT NULL,
    genesys_agent VARCHAR(64) DEFAULT '' NOT NULL,
    skills VARCHAR(4160) DEFAULT '' NOT NULL
);
