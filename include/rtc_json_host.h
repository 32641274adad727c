/* rtc_json_host.h: what the C skin gives the Rust core.
 *
 * Written by hand; bindgen makes the Rust side of it. The core's own exports are in rtc_json.h, which is generated.
 *
 * Every function here does one thing in Kamailio and decides nothing. All strings are borrowed for the length of the
 * call. None of them is called while the core holds a lock, so each may call back into the core.
 */
#ifndef RTC_JSON_HOST_H
#define RTC_JSON_HOST_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that somebody else owns; valid for the length of the call. Not NUL-terminated. `s` may be NULL if `len` is 0. */
typedef struct rtc_json_str {
	const char *s;
	size_t len;
} rtc_json_str_t;

/* A request that the core wants sent in a client transaction of its own. */
typedef struct rtc_json_request {
	rtc_json_str_t method;
	rtc_json_str_t ruri;     /* Request-URI */
	rtc_json_str_t from;     /* name-addr without tag: "Name" <sip:...> */
	rtc_json_str_t from_tag;
	rtc_json_str_t to;       /* name-addr without tag */
	rtc_json_str_t to_tag;   /* empty outside a dialog */
	rtc_json_str_t call_id;
	uint32_t cseq;
	rtc_json_str_t next_hop; /* SIP URI to send to; empty: the Request-URI */
	rtc_json_str_t headers;  /* further header lines, each ended by CRLF (Contact, Route, Content-Type, ...) */
	rtc_json_str_t body;
	rtc_json_str_t handle;   /* comes back with every reply (rtc_json_sip_reply) */
} rtc_json_request_t;

/* A reply of the core to a request that tm holds (server transaction `index`:`label`). */
typedef struct rtc_json_reply {
	uint32_t index;
	uint32_t label;
	int32_t code;
	rtc_json_str_t reason;
	rtc_json_str_t to_tag;   /* empty: tm's own */
	rtc_json_str_t headers;
	rtc_json_str_t body;
} rtc_json_reply_t;

/* An answer of the user database. */
typedef enum rtc_json_ha1_result {
	RTC_JSON_HA1_FOUND = 0,
	RTC_JSON_HA1_UNKNOWN = 1, /* no such user */
	RTC_JSON_HA1_FAILED = 2   /* the database could not be asked */
} rtc_json_ha1_result_t;

/* A call that is over. */
typedef struct rtc_json_call_record {
	rtc_json_str_t call_id;
	rtc_json_str_t sip_call_id;
	rtc_json_str_t dn;
	rtc_json_str_t direction; /* "in" or "out" */
	rtc_json_str_t caller;
	rtc_json_str_t callee;
	rtc_json_str_t started;   /* RFC 3339, UTC */
	rtc_json_str_t reason;
	rtc_json_str_t transferred_to; /* number; empty: nowhere */
	rtc_json_str_t transfers; /* JSON array; empty: none */
	int64_t answered;         /* 0 or 1 */
	int64_t duration;         /* seconds */
	int64_t code;             /* SIP; 0: none */
	int64_t cause;            /* Q.850; 0: none */
	int64_t ring_after;       /* milliseconds; 0: never */
	int64_t answer_after;     /* milliseconds; 0: never */
	int64_t recorded;         /* 0 or 1 */
} rtc_json_call_record_t;

typedef struct rtc_json_host {
	/* Writes one log line at a Kamailio level (L_ERR -1, L_WARN 0, L_NOTICE 1, L_INFO 2, L_DBG 3). */
	void (*log)(int32_t level, rtc_json_str_t line);
	/* Sends a text frame on a WebSocket connection. 0: handed to the socket; negative: the connection is gone. */
	int32_t (*ws_send)(int32_t conn, rtc_json_str_t frame);
	/* Closes a WebSocket connection with a status (RFC 6455, 7.4). */
	void (*ws_close)(int32_t conn, int32_t status, rtc_json_str_t reason);
	/* Is there still a connection of that number? 1 or 0. */
	int32_t (*conn_alive)(int32_t conn);
	/* Starts a client transaction. 0: started, its replies will come; negative: nothing was sent, no reply will come. */
	int32_t (*request)(const rtc_json_request_t *req);
	/* Cancels the INVITE with this Call-ID and CSeq. Negative: tm has no such transaction any more. */
	int32_t (*cancel)(rtc_json_str_t call_id, uint32_t cseq);
	/* Answers a request that tm holds. Negative: the transaction is gone. */
	int32_t (*reply)(const rtc_json_reply_t *rep);
	/* An INVITE that tm holds goes on to another node, by its SIP URI, which answers it in our place. Negative: the transaction is gone,
	 * or nothing could be sent. */
	int32_t (*pass_on)(uint32_t index, uint32_t label, rtc_json_str_t uri);
	/* Asks the user table for the HA1 of a user (MD5, 32 hex digits). Writes it into `out` (at least 65 bytes, NUL-ended). */
	rtc_json_ha1_result_t (*ha1)(rtc_json_str_t user, rtc_json_str_t realm, char *out, size_t out_len);
	/* Writes an agent's skills, with commas between, into the directory's table. 0: written, or there is no table. */
	int32_t (*directory_write)(rtc_json_str_t dn, rtc_json_str_t skills);
	/* Writes the record of a call into its table; one that is there already stays. -1: the table cannot be reached. -2: it can,
	 * and does not take the record. */
	int32_t (*record_write)(const rtc_json_call_record_t *record);
	/* Sends a message to all other nodes. Negative: it could not be. */
	int32_t (*node_broadcast)(rtc_json_str_t body);
	/* Runs event_route[rtc_json:call-ended]; $rtcj(call.*) reads the record through rtc_json_var. */
	void (*call_ended)(void);
} rtc_json_host_t;

/* One row of an RPC answer is a struct of these; the core calls them between row_begin and row_end. */
typedef struct rtc_json_rpc_sink {
	void *ctx;
	void (*row_begin)(void *ctx);
	void (*text)(void *ctx, const char *name, rtc_json_str_t value);
	void (*number)(void *ctx, const char *name, int64_t value);
	void (*row_end)(void *ctx);
} rtc_json_rpc_sink_t;

/* Module parameters as Kamailio read them. Checked by rtc_json_init, which writes what is wrong and what to write instead. */
typedef struct rtc_json_config {
	rtc_json_str_t outbound_proxy;   /* SIP URI of the next hop; empty in local mode: ourselves */
	rtc_json_str_t register_mode;    /* "upstream" or "local" */
	rtc_json_str_t contact;          /* host:port (or [v6]:port) that goes into Contact */
	rtc_json_str_t domain;           /* host part of From and To; empty: host of outbound_proxy, or of contact */
	rtc_json_str_t realm;            /* digest realm; needed in local mode */
	rtc_json_str_t codecs;           /* "PCMU,telephone-event" */
	rtc_json_str_t dn_chars;         /* characters allowed in dn and to beside letters and digits */
	rtc_json_str_t over_limit;       /* "refuse" or "replace": what a session over max_sessions_per_agent does */
	rtc_json_str_t server_name;      /* `server` in registered */
	rtc_json_str_t arena_path;
	int64_t arena_size;              /* MB */
	int32_t require_dtls;
	int32_t max_frame;               /* bytes */
	int32_t max_calls_per_agent;
	int32_t max_sessions_per_agent;
	int32_t call_rate;                 /* calls a second of one agent; 0: any number */
	int32_t register_failures;         /* of one DN; 0: any number */
	int32_t register_failures_address; /* of one address; 0: any number */
	int32_t max_sockets_address;       /* WebSockets of one address; 0: any number */
	int32_t away_reply;                /* SIP status for a call to an agent who is away; 0: it rings all the same */
	int32_t resume_grace;            /* seconds */
	int32_t expires;                 /* seconds */
	int32_t ring_timeout;            /* seconds */
	int32_t log_messages;
	int32_t session_expires;          /* seconds; 0: none asked for */
	int32_t min_se;                   /* seconds */
	int32_t max_redirects;            /* addresses */
	rtc_json_str_t dtmf_mode;         /* "info" or "rfc4733" */
	int32_t dtmf_duration;            /* milliseconds */
	rtc_json_str_t trickle;           /* "off", "info", "update" or "auto" */
	int32_t accept_refer;
	rtc_json_str_t conference_prefix; /* of a room that the server names */
	rtc_json_str_t headers_in;        /* names, "*" at the end for any rest */
	rtc_json_str_t headers_out;       /* the same */
	rtc_json_str_t trusted_peers;     /* addresses and networks; empty: outbound_proxy, where it is an address */
	rtc_json_str_t jwt_keys;          /* file with keys; empty: no tokens */
	rtc_json_str_t jwt_issuer;
	rtc_json_str_t jwt_audience;
	int32_t jwt_leeway;               /* seconds */
	rtc_json_str_t turn_uris;         /* STUN and TURN servers for browsers; empty: none */
	rtc_json_str_t turn_secret;       /* shared with the TURN server, or "file:" and a path */
	int32_t turn_ttl;                 /* seconds */
	rtc_json_str_t api_origins;       /* origins whose pages may use the REST API; empty: none */
	rtc_json_str_t genesys_uri;       /* SIP URI that is asked whether it is there; empty: none */
	int32_t genesys_interval;         /* seconds */
	int32_t next_hop_interval;        /* seconds from one question to the next hop to the next; 0: it is not asked */
	int32_t call_history;             /* records of past calls that are kept */
	int32_t log_calls;                /* a log line for each call that is over */
	int32_t write_calls;              /* record_write is to be called */
	rtc_json_str_t node_secret;       /* shared by all nodes, or "file:" and a path; empty: there is one node */
} rtc_json_config_t;

#endif
