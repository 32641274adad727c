/* rtc_json_ws.c: frames in and out, and the end of a WebSocket connection.
 *
 * receive_msg() would give a JSON frame to the SIP parser, which logs what it cannot parse, passwords and all. So a frame
 * is taken in the SREV_NET_DATA_IN event, before the parser: it is copied away and a placeholder is written over it that
 * parses as a request of another protocol. Core then calls the hooks for such requests, and ours finds the frame again,
 * now with a sip_msg that carries the addresses of the connection for the script.
 */
#define _GNU_SOURCE
#include <limits.h>
#include <string.h>

#include "core/config.h"
#include "core/dprint.h"
#include "core/events.h"
#include "core/globals.h"
#include "core/ip_addr.h"
#include "core/nonsip_hooks.h"
#include "core/parser/parse_fline.h"
#include "core/receive.h"
#include "core/sr_module.h"
#include "core/tcp_conn.h"
#include "core/tcp_options.h"

#include "rtc_json_mod.h"

/* As long as the shortest valid message of a client. The URI lets scripts that look at $ru or $rU go on without errors. */
#define PLACEHOLDER_METHOD "JSON"
#define PLACEHOLDER_VERSION "J/1"
#define PLACEHOLDER PLACEHOLDER_METHOD " sip:a " PLACEHOLDER_VERSION "\r\nA: b\r\n\r\n"
#define PLACEHOLDER_LEN (sizeof(PLACEHOLDER) - 1)

/* Header of a frame from a client with up to 65535 bytes: 4 bytes and the mask (RFC 6455, 5.2). */
#define FRAME_HEADER_LEN 8
/* Longest reason in a close frame (RFC 6455, 5.5: 125 bytes with the status). */
#define CLOSE_REASON_MAX 123

/* The frame between the event and the hook; both run in one receive_msg(). */
static struct
{
	int held;
	char *at; /* where it came, and where the placeholder stands now */
	int len;
	char text[BUF_SIZE];
	/* what stood behind a frame shorter than the placeholder: maybe the start of the next frame */
	char tail[PLACEHOLDER_LEN + 1];
	size_t tail_len;
	receive_info_t *rcv;
} frame;

static sip_msg_t *open_message;
static cmd_function3 ws_close;

/* JSON, or neither JSON nor SIP nor a keep-alive: ours to answer. */
static int is_ours(const str *data)
{
	const char *p = data->s, *end = data->s + data->len;

	while(p < end && (*p == '\r' || *p == '\n'))
		p++;
	if(p == end)
		return data->len == 0; /* CRLF is a keep-alive (RFC 7118) */
	while(p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
		p++;
	if(p < end && *p == '{')
		return 1;
	/* the last fragmented frame once more (a stray continuation): the hook drops it in silence */
	if((size_t)data->len >= PLACEHOLDER_LEN && memcmp(data->s, PLACEHOLDER, PLACEHOLDER_LEN) == 0)
		return 0;
	return sip_check_fline(data->s, data->len) != 0;
}

/* May we write the placeholder over a frame that is shorter? Frames stand at the start of a buffer, so yes; checked all
 * the same for the one buffer whose end can be seen. The others (a fragmented frame, tcp_clone_rcvbuf) have BUF_SIZE. */
static int has_room(const str *data, const receive_info_t *rcv)
{
	struct tcp_connection *con = tcpconn_get(rcv->proto_reserved1, 0, 0, 0, 0);
	const char *buf, *end;
	int ok;

	if(con == NULL)
		return 0;
	buf = con->req.buf;
	end = buf + con->req.b_size;
	ok = data->s < buf || data->s >= end || data->s + PLACEHOLDER_LEN < end;
	tcpconn_put(con);
	return ok;
}

static int on_data_in(sr_event_param_t *evp)
{
	str *data = (str *)evp->data;
	receive_info_t *rcv = evp->rcv;

	frame.held = 0;
	if(rcv == NULL || (rcv->proto != PROTO_WS && rcv->proto != PROTO_WSS) || !is_ours(data))
		return 0;
	if(data->len >= (int)sizeof(frame.text) || ((size_t)data->len < PLACEHOLDER_LEN && !has_room(data, rcv))) {
		/* cannot happen, and must not be logged by the parser: an empty message closes the connection */
		explicit_bzero(data->s, data->len);
		data->len = 0;
		return 0;
	}

	frame.held = 1;
	frame.at = data->s;
	frame.len = data->len;
	frame.tail_len = 0;
	memcpy(frame.text, data->s, data->len);
	if((size_t)data->len < PLACEHOLDER_LEN) {
		frame.tail_len = PLACEHOLDER_LEN + 1 - data->len;
		memcpy(frame.tail, data->s + data->len, frame.tail_len);
		/* what stood there is put back by the hook, so nothing may end the message before it: core:pre-routing could */
		frame.rcv = rcv;
		rcv->rflags |= RECV_F_INTERNAL;
	} else {
		explicit_bzero(data->s, data->len); /* a password stays in no buffer */
	}
	memcpy(data->s, PLACEHOLDER, PLACEHOLDER_LEN + 1);
	data->len = PLACEHOLDER_LEN;
	return 0;
}

static int is_placeholder(const sip_msg_t *msg)
{
	const str *method = &msg->first_line.u.request.method, *version = &msg->first_line.u.request.version;

	return method->len == sizeof(PLACEHOLDER_METHOD) - 1 && version->len == sizeof(PLACEHOLDER_VERSION) - 1
		   && memcmp(method->s, PLACEHOLDER_METHOD, method->len) == 0
		   && memcmp(version->s, PLACEHOLDER_VERSION, version->len) == 0;
}

static int on_nonsip(sip_msg_t *msg)
{
	const char *ip;
	int dropped = 0, parsed;

	if(!is_placeholder(msg))
		return NONSIP_MSG_PASS;
	if(!frame.held || frame.at != msg->buf)
		return NONSIP_MSG_DROP; /* somebody sent the placeholder itself */
	frame.held = 0;
	if(frame.tail_len > 0) {
		memcpy(frame.at + frame.len, frame.tail, frame.tail_len);
		frame.rcv->rflags &= ~RECV_F_INTERNAL;
	}

	ip = ip_addr2a(&msg->rcv.src_ip);
	parsed = rtc_json_frame_open(msg->rcv.proto_reserved1, rtcj_from_text(ip, strlen(ip)),
			rtcj_from_text(frame.text, frame.len));
	explicit_bzero(frame.text, frame.len);
	if(parsed != 1)
		return NONSIP_MSG_DROP;

	if(rtcj_event_wanted(RTCJ_EVENT_MESSAGE)) {
		open_message = msg;
		dropped = rtcj_event_run(msg, RTCJ_EVENT_MESSAGE);
		open_message = NULL;
	}
	rtc_json_frame_close(rtcj_from_str(&msg->dst_uri), dropped);
	return NONSIP_MSG_DROP;
}

static int on_ws_close(sr_event_param_t *evp)
{
	/* at shutdown the websocket module reports what is left in a process that never called the core */
	const char *ip;

	if(evp->rcv != NULL && rtcj_process_ready()) {
		ip = ip_addr2a(&evp->rcv->src_ip);
		rtc_json_ws_closed(evp->rcv->proto_reserved1, rtcj_from_text(ip, strlen(ip)));
	}
	return 0;
}

int rtcj_ws_allowed(sip_msg_t *msg)
{
	const char *ip = ip_addr2a(&msg->rcv.src_ip);

	/* (with no word in the log: a script that asks at every request has done nothing wrong) */
	if(!rtcj_process_ready() || !IS_HTTP(msg))
		return 1;
	return rtc_json_ws_allowed(msg->rcv.proto_reserved1, rtcj_from_text(ip, strlen(ip))) == 1 ? 1 : -1;
}

sip_msg_t *rtcj_ws_open_message(void)
{
	return open_message;
}

/* The websocket module writes an error line for a connection that is gone. That is no error, so look first. */
int32_t rtcj_ws_alive(int32_t conn)
{
	struct tcp_connection *con = tcpconn_get(conn, 0, 0, 0, 0);

	if(con == NULL)
		return 0;
	tcpconn_put(con);
	return 1;
}

int32_t rtcj_ws_send(int32_t conn, rtc_json_str_t text)
{
	ws_event_info_t ws = {0};
	sr_event_param_t evp = {0};

	if(text.len > INT_MAX || !rtcj_ws_alive(conn))
		return -1;
	ws.type = SREV_TCP_WS_FRAME_OUT;
	ws.buf = (char *)text.s;
	ws.len = (int)text.len;
	ws.id = conn;
	evp.data = &ws;
	return sr_event_exec(SREV_TCP_WS_FRAME_OUT, &evp) == 0 ? 0 : -1;
}

void rtcj_ws_close(int32_t conn, int32_t status, rtc_json_str_t reason)
{
	fparam_t p_status = {0}, p_reason = {0}, p_conn = {0};

	if(!rtcj_ws_alive(conn))
		return;
	p_status.type = FPARAM_INT;
	p_status.v.i = status;
	p_reason.type = FPARAM_STR;
	p_reason.v.str = rtcj_to_str(reason);
	if(p_reason.v.str.len > CLOSE_REASON_MAX)
		p_reason.v.str.len = CLOSE_REASON_MAX;
	p_conn.type = FPARAM_INT;
	p_conn.v.i = conn;
	ws_close(NULL, (char *)&p_status, (char *)&p_reason, (char *)&p_conn);
}

/* When the module is loaded, that is before any module is initialised: topos, topoh and sipdump read the same event and
 * would parse, and log, a JSON frame if they came first. In mod_init the order of loadmodule would decide. */
int rtcj_ws_register(void)
{
	if(sr_event_register_cb(SREV_NET_DATA_IN, on_data_in) < 0) {
		LM_ERR("cannot register for received data\n");
		return -1;
	}
	return 0;
}

/* Core closes a connection whose frame does not fit, with no word to the client. */
static void check_room(int max_frame)
{
	int need = max_frame + FRAME_HEADER_LEN + 2;

	if((int)tcp_default_cfg.rd_buf_size < need)
		LM_WARN("frames of max_frame (%d bytes) do not fit: write tcp_rd_buf_size=%d\n", max_frame, need);
#if VERSIONVAL >= 5008000
	if(ksr_msg_recv_max_size < need)
		LM_WARN("frames of max_frame (%d bytes) do not fit: write msg_recv_max_size=%d\n", max_frame, need);
#endif
}

int rtcj_ws_init(int max_frame)
{
	struct nonsip_hook hook = {0};

	check_room(max_frame);

	ws_close = (cmd_function3)(void *)find_export("ws_close", 3, 0);
	if(!module_loaded("websocket") || ws_close == NULL) {
		LM_ERR("the websocket module is not loaded: write loadmodule \"websocket.so\" before rtc_json.so\n");
		return -1;
	}
	if(sr_event_register_cb(SREV_TCP_WS_CLOSE, on_ws_close) < 0) {
		LM_ERR("cannot register for closed WebSocket connections: too many modules do\n");
		return -1;
	}
	hook.name = "rtc_json";
	hook.on_nonsip_req = on_nonsip;
	if(register_nonsip_msg_hook(&hook) < 0) {
		LM_ERR("cannot register the hook for requests that are not SIP\n");
		return -1;
	}
	return 0;
}
