/* frame_echo.c: a Kamailio module for tests. It sends each WebSocket message back, as the Autobahn test suite wants it of a server:
 * what Kamailio makes of frames shows without the module that is under test otherwise. */
#include "core/dprint.h"
#include "core/events.h"
#include "core/parser/msg_parser.h"
#include "core/nonsip_hooks.h"
#include "core/sr_module.h"
#include "core/tcp_conn.h"

MODULE_VERSION

/* What the parser could not read, which is every message of that suite. */
static int on_message(sr_event_param_t *evp)
{
	sip_msg_t *msg = (sip_msg_t *)evp->data;
	ws_event_info_t out = {.type = SREV_TCP_WS_FRAME_OUT, .buf = msg->buf, .len = msg->len, .id = msg->rcv.proto_reserved1};
	sr_event_param_t back = {.data = &out};

	if(msg->rcv.proto != PROTO_WS && msg->rcv.proto != PROTO_WSS)
		return NONSIP_MSG_ERROR;
	sr_event_exec(SREV_TCP_WS_FRAME_OUT, &back);
	return NONSIP_MSG_DROP;
}

static int mod_init(void)
{
	return sr_event_register_cb(SREV_RCV_NOSIP, on_message);
}

struct module_exports exports = {
		.name = "frame_echo",
		.dlflags = DEFAULT_DLFLAGS,
		.init_mod_f = mod_init,
};
