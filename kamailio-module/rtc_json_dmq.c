/* rtc_json_dmq.c: messages between nodes, carried by Kamailio's dmq module. Only with the parameter node_secret. */
#include "core/dprint.h"
#include "core/parser/parse_content.h"
#include "core/parser/parser_f.h"
#include "core/sr_module.h"
#include "modules/dmq/bind_dmq.h"

#include "rtc_json_mod.h"

static dmq_api_t dmq;
static dmq_peer_t *peer;
static str peer_id = str_init("rtc_json");
static str content_type = str_init("application/vnd.rtc-json-nodes");

/* Whether a message has arrived shows in the digests: nothing is done for a single one. */
static int on_response(struct sip_msg *msg, int code, dmq_node_t *node, void *param)
{
	(void)msg;
	(void)code;
	(void)node;
	(void)param;
	return 0;
}

static dmq_resp_cback_t responses = {on_response, NULL};

static int on_message(struct sip_msg *msg, peer_reponse_t *resp, dmq_node_t *node)
{
	static str ok = str_init("OK"), refused = str_init("Forbidden");
	str body;
	int taken = 0;

	(void)node;
	if(parse_headers(msg, HDR_EOH_F, 0) == 0 && msg->content_length != NULL) {
		body.s = get_body(msg);
		body.len = get_content_length(msg);
		if(body.s != NULL && body.len > 0 && body.s + body.len <= msg->buf + msg->len)
			taken = rtc_json_node_message(rtcj_from_str(&body));
	}
	resp->resp_code = taken ? 200 : 403;
	resp->reason = taken ? ok : refused;
	return 0;
}

int rtcj_dmq_init(void)
{
	dmq_peer_t wanted = {0};

	if(rtcj_config.node_secret.len == 0)
		return 0;
	if(!module_loaded("dmq") || dmq_load_api(&dmq) < 0) {
		LM_ERR("node_secret is set, but the dmq module is not loaded: write loadmodule \"dmq.so\" before rtc_json.so\n");
		return -1;
	}
	wanted.peer_id = peer_id;
	wanted.description = peer_id;
	wanted.callback = on_message;
	peer = dmq.register_dmq_peer(&wanted);
	if(peer == NULL) {
		LM_ERR("cannot register with the dmq module\n");
		return -1;
	}
	return 0;
}

int32_t rtcj_dmq_broadcast(rtc_json_str_t body)
{
	str text = rtcj_to_str(body);

	if(peer == NULL)
		return -1;
	return dmq.bcast_message(peer, &text, NULL, &responses, 1, &content_type) < 0 ? -1 : 0;
}
