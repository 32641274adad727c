/* rtc_json_mod.h: what the C files of the Kamailio module rtc_json share.
 *
 * The C side translates between Kamailio and the Rust core and decides nothing. Names that start with rtcj_ are ours,
 * names that start with rtc_json_ are the core's (rtc_json.h).
 */
#ifndef RTC_JSON_MOD_H
#define RTC_JSON_MOD_H

#include "core/parser/msg_parser.h"
#include "core/str.h"

#include "rtc_json.h"

/* Event routes of the module. */
typedef enum rtcj_event
{
	RTCJ_EVENT_MESSAGE = 0, /* event_route[rtc_json:message] */
	RTCJ_EVENT_CALL_ENDED = 1, /* event_route[rtc_json:call-ended] */
} rtcj_event_t;

/* rtc_json_mod.c */

extern rtc_json_config_t rtcj_config;

/* Does the script (or the KEMI callback) want this event? */
int rtcj_event_wanted(rtcj_event_t event);
/* Runs it with `msg`. 1: the script said `drop`, 0: it did not. */
int rtcj_event_run(sip_msg_t *msg, rtcj_event_t event);
/* Has this process been set up to call the core? */
int rtcj_process_ready(void);

static inline rtc_json_str_t rtcj_from_str(const str *s)
{
	rtc_json_str_t r = {s->s, s->len > 0 ? (size_t)s->len : 0};
	return r;
}

static inline rtc_json_str_t rtcj_from_text(const char *s, size_t len)
{
	rtc_json_str_t r = {s, len};
	return r;
}

static inline str rtcj_to_str(rtc_json_str_t s)
{
	str r = {(char *)s.s, (int)s.len};
	return r;
}

/* rtc_json_ws.c */

int rtcj_ws_register(void);
int rtcj_ws_init(int max_frame);
/* The message whose event route runs now in this process, or NULL. */
sip_msg_t *rtcj_ws_open_message(void);
int32_t rtcj_ws_send(int32_t conn, rtc_json_str_t frame);
/* Is there still a connection of that number? 1 or 0. */
int32_t rtcj_ws_alive(int32_t conn);
/* rtc_json_socket_allowed(). 1: it may become a WebSocket, -1: its address has too many. */
int rtcj_ws_allowed(sip_msg_t *msg);
void rtcj_ws_close(int32_t conn, int32_t status, rtc_json_str_t reason);

/* rtc_json_tm.c */

int rtcj_tm_init(void);
void rtcj_tm_destroy(void);
/* rtc_json_handle() for a SIP request. 1: taken, -1: the script goes on. */
int rtcj_sip_handle(sip_msg_t *msg);
int32_t rtcj_request(const rtc_json_request_t *req);
int32_t rtcj_cancel(rtc_json_str_t call_id, uint32_t cseq);
int32_t rtcj_pass_on(uint32_t index, uint32_t label, rtc_json_str_t uri);
int32_t rtcj_reply(const rtc_json_reply_t *rep);

/* rtc_json_spares.c */

/* Lays out free fragments of all small sizes in the private memory of this process. */
void rtcj_spares_private(void);
/* Cuts a part of shared memory into chunks for small pieces; once, before there are other processes. */
void rtcj_spares_shared(void);

/* rtc_json_http.c */

/* rtc_json_api_handle(). 1: answered, -1: not for the API, the script goes on. */
int rtcj_http_handle(sip_msg_t *msg);

/* rtc_json_db.c */

extern str rtcj_db_url;
extern str rtcj_subscriber_table;
extern str rtcj_user_column;
extern str rtcj_domain_column;
extern str rtcj_ha1_column;
extern int rtcj_use_domain;

int rtcj_db_init(void);
int rtcj_db_child_init(void);
rtc_json_ha1_result_t rtcj_ha1(rtc_json_str_t user, rtc_json_str_t realm, char *out, size_t out_len);

/* rtc_json_directory.c */

extern str rtcj_directory_url;
extern str rtcj_directory_table;

int rtcj_directory_init(void);
int rtcj_directory_child_init(void);
/* Reads the table anew. Number of rows, or -1. */
int rtcj_directory_load(void);
int32_t rtcj_directory_write(rtc_json_str_t dn, rtc_json_str_t skills);

/* rtc_json_records.c */

extern str rtcj_records_url;
extern str rtcj_records_table;

int rtcj_records_init(void);
int32_t rtcj_record_write(const rtc_json_call_record_t *record);

/* rtc_json_dmq.c */

int rtcj_dmq_init(void);
int32_t rtcj_dmq_broadcast(rtc_json_str_t body);

/* rtc_json_rpc.c */

int rtcj_rpc_init(void);
int rtcj_stats_init(void);

#endif
