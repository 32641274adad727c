/* rtc_json_mod.c: exports, parameters, start and end, script functions, $rtcj(name), KEMI. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "core/action.h"
#include "core/dprint.h"
#include "core/fmsg.h"
#include "core/globals.h"
#include "core/kemi.h"
#include "core/mod_fix.h"
#include "core/pt.h"
#include "core/pvapi.h"
#include "core/pvar.h"
#include "core/route.h"
#include "core/socket_info.h"
#include "core/sr_module.h"
#include "core/timer_proc.h"
#include "core/ut.h"

#include "rtc_json_mod.h"

MODULE_VERSION

/* Period of rtc_json_tick(), in microseconds. */
#define TICK_USEC 100000

rtc_json_config_t rtcj_config;

/* clang-format off */
static struct params
{
	str outbound_proxy, register_mode, contact, domain, realm, codecs, dn_chars, over_limit, server_name, arena_path;
	str dtmf_mode, trickle, conference_prefix, headers_in, headers_out, trusted_peers, jwt_keys, jwt_issuer, jwt_audience;
	str turn_uris, turn_secret, api_origins, genesys_uri;
	int memory_spares, arena_size, require_dtls, max_frame, max_calls_per_agent, max_sessions_per_agent;
	int resume_grace, expires, ring_timeout, log_messages;
	int session_expires, min_se, max_redirects, dtmf_duration, accept_refer, jwt_leeway, turn_ttl;
	int genesys_interval, next_hop_interval, call_history, log_calls;
	int call_rate, register_failures, register_failures_address, max_sockets_address, away_reply;
	str event_callback, node_secret;
} params = {
	.register_mode = str_init("upstream"),
	.codecs = str_init("PCMU,telephone-event"),
	.dn_chars = str_init("._+*#-"),
	.over_limit = str_init("replace"),
	.server_name = str_init("rtc_json"),
	.arena_path = str_init("/dev/shm/rtc_json.arena"),
	.memory_spares = 1,
	.arena_size = 64,
	.require_dtls = 1,
	.max_frame = 32768,
	.max_calls_per_agent = 4,
	.max_sessions_per_agent = 4,
	.call_rate = 50,
	.register_failures = 10,
	.register_failures_address = 200,
	.max_sockets_address = 1000,
	.resume_grace = 30,
	.expires = 300,
	.ring_timeout = 90,
	.session_expires = 1800,
	.min_se = 90,
	.max_redirects = 5,
	.dtmf_mode = str_init("info"),
	.dtmf_duration = 160,
	.trickle = str_init("auto"),
	.accept_refer = 1,
	.conference_prefix = str_init("conf-"),
	.headers_in = str_init("X-Genesys-*,User-to-User,P-Asserted-Identity,Diversion"),
	.headers_out = str_init("X-Genesys-*,User-to-User,Diversion"),
	.jwt_leeway = 30,
	.turn_ttl = 600,
	.genesys_interval = 10,
	.next_hop_interval = 1,
	.call_history = 1000,
};
/* clang-format on */

static str event_names[] = {
		[RTCJ_EVENT_MESSAGE] = str_init("rtc_json:message"),
		[RTCJ_EVENT_CALL_ENDED] = str_init("rtc_json:call-ended"),
};
/* The names as a config file can have them. Kamailio's grammar knows no underscore before the colon: up to 6.1 it prints
 * the "rtc_" of event_route[rtc_json:message] on stdout and calls the route "json:message". So both spellings work. */
static char *route_names[][3] = {
		[RTCJ_EVENT_MESSAGE] = {"rtc-json:message", "rtc_json:message", "json:message"},
		[RTCJ_EVENT_CALL_ENDED] = {"rtc-json:call-ended", "rtc_json:call-ended", "json:call-ended"},
};
static int event_routes[] = {[RTCJ_EVENT_MESSAGE] = -1, [RTCJ_EVENT_CALL_ENDED] = -1};

static pid_t ready_pid; /* the process for which rtc_json_child_init() has worked */

/* ---- event routes ---- */

int rtcj_event_wanted(rtcj_event_t event)
{
	return params.event_callback.len > 0 || event_routes[event] >= 0;
}

int rtcj_event_run(sip_msg_t *msg, rtcj_event_t event)
{
	int route_type = get_route_type();
	sr_kemi_eng_t *engine;
	run_act_ctx_t ctx, *outer;

	init_run_actions_ctx(&ctx);
	set_route_type(EVENT_ROUTE);
	if(params.event_callback.len > 0) {
		engine = sr_kemi_eng_get();
		if(engine == NULL) {
			LM_ERR("event_callback is set, but no KEMI engine is loaded\n");
		} else {
			outer = sr_kemi_act_ctx_get();
			sr_kemi_act_ctx_set(&ctx);
			if(sr_kemi_route(engine, msg, EVENT_ROUTE, &params.event_callback, &event_names[event]) < 0)
				LM_ERR("cannot run event_callback for %s\n", event_names[event].s);
			sr_kemi_act_ctx_set(outer);
		}
	} else {
		run_top_route(event_rt.rlist[event_routes[event]], msg, &ctx);
	}
	set_route_type(route_type);
	return (ctx.run_flags & DROP_R_F) != 0;
}

static void call_ended(void)
{
	sip_msg_t *msg;

	if(!rtcj_event_wanted(RTCJ_EVENT_CALL_ENDED))
		return;
	msg = faked_msg_get_next();
	if(msg != NULL)
		rtcj_event_run(msg, RTCJ_EVENT_CALL_ENDED);
}

/* ---- script functions ---- */

static int ki_handle(sip_msg_t *msg)
{
	if(msg == rtcj_ws_open_message())
		return rtc_json_frame_handle(rtcj_from_str(&msg->dst_uri)) == 1 ? 1 : -1;
	if(msg->first_line.type != SIP_REQUEST || !IS_SIP(msg) || faked_msg_match(msg))
		return -1;
	return rtcj_sip_handle(msg);
}

static int w_handle(sip_msg_t *msg, char *p1, char *p2)
{
	(void)p1;
	(void)p2;
	return ki_handle(msg);
}

static int ki_reject(sip_msg_t *msg, int code, str *reason)
{
	int ret;

	if(msg != rtcj_ws_open_message()) {
		LM_ERR("rtc_json_reject() works in event_route[rtc_json:message] only\n");
		return -1;
	}
	ret = rtc_json_frame_reject(code, rtcj_from_str(reason));
	if(ret == -2)
		LM_ERR("rtc_json_reject(): the code must be 400 to 699, the reason printable\n");
	return ret == 1 ? 1 : -1;
}

static int w_reject(sip_msg_t *msg, char *p_code, char *p_reason)
{
	str code, reason;
	int number;

	if(fixup_get_svalue(msg, (gparam_t *)p_code, &code) < 0 || str2sint(&code, &number) < 0) {
		LM_ERR("rtc_json_reject(): the code is no number\n");
		return -1;
	}
	if(fixup_get_svalue(msg, (gparam_t *)p_reason, &reason) < 0) {
		LM_ERR("rtc_json_reject(): the reason has no value\n");
		return -1;
	}
	return ki_reject(msg, number, &reason);
}

static int w_api_handle(sip_msg_t *msg, char *p1, char *p2)
{
	(void)p1;
	(void)p2;
	return rtcj_http_handle(msg);
}

static int w_socket_allowed(sip_msg_t *msg, char *p1, char *p2)
{
	(void)p1;
	(void)p2;
	return rtcj_ws_allowed(msg);
}

static int ki_locate(sip_msg_t *msg, str *user)
{
	int found;

	(void)msg;
	if(user == NULL || !rtcj_process_ready())
		return -1;
	found = rtc_json_locate(rtcj_from_str(user));
	return found > 0 ? found : -1;
}

static int w_locate(sip_msg_t *msg, char *p_user, char *p2)
{
	str user;

	(void)p2;
	if(fixup_get_svalue(msg, (gparam_t *)p_user, &user) < 0) {
		LM_ERR("rtc_json_locate(): the number has no value\n");
		return -1;
	}
	return ki_locate(msg, &user);
}

/* ---- $rtcj(name) ---- */

static int pv_parse_name(pv_spec_p spec, str *in)
{
	if(in == NULL || in->s == NULL || in->len <= 0) {
		LM_ERR("$rtcj() needs a name, e.g. $rtcj(type)\n");
		return -1;
	}
	spec->pvp.pvn.type = PV_NAME_INTSTR;
	spec->pvp.pvn.u.isname.type = AVP_NAME_STR;
	spec->pvp.pvn.u.isname.name.s = *in;
	return 0;
}

static int pv_get_rtcj(sip_msg_t *msg, pv_param_t *param, pv_value_t *res)
{
	rtc_json_str_t value = {NULL, 0};
	str s;
	char *copy;

	if(param == NULL || !rtcj_process_ready()
			|| rtc_json_var(rtcj_from_str(&param->pvn.u.isname.name.s), &value) != 1)
		return pv_get_null(msg, param, res);
	s = rtcj_to_str(value);
	if(s.len == 0)
		return pv_get_strempty(msg, param, res);
	/* an expression may hold two values of ours, and the core keeps one; what is too long for that is an SDP */
	if(s.len < pv_get_buffer_size()) {
		copy = pv_get_buffer();
		memcpy(copy, s.s, s.len);
		copy[s.len] = 0;
		s.s = copy;
	}
	return pv_get_strval(msg, param, res, &s);
}

/* ---- start and end ---- */

static void host_log(int32_t level, rtc_json_str_t line)
{
	LOG(level, "%.*s\n", (int)line.len, line.s);
}

static const rtc_json_host_t host = {
		.log = host_log,
		.ws_send = rtcj_ws_send,
		.ws_close = rtcj_ws_close,
		.conn_alive = rtcj_ws_alive,
		.request = rtcj_request,
		.cancel = rtcj_cancel,
		.reply = rtcj_reply,
		.pass_on = rtcj_pass_on,
		.ha1 = rtcj_ha1,
		.directory_write = rtcj_directory_write,
		.record_write = rtcj_record_write,
		.node_broadcast = rtcj_dmq_broadcast,
		.call_ended = call_ended,
};

int rtcj_process_ready(void)
{
	return ready_pid == getpid();
}

/* What goes into Contact when the parameter is empty: the first UDP socket, better not a loopback one. */
static int default_contact(str *contact)
{
	static char text[256];
	struct socket_info *si, *chosen = NULL;
	str host_part, port;
	int v6;

	for(si = udp_listen; si != NULL; si = si->next) {
		if(chosen == NULL || ((chosen->flags & SI_IS_LO) && !(si->flags & SI_IS_LO)))
			chosen = si;
	}
	if(chosen == NULL)
		return -1;
	host_part = chosen->useinfo.name.len > 0 ? chosen->useinfo.name : chosen->address_str;
	port = chosen->useinfo.port_no > 0 ? chosen->useinfo.port_no_str : chosen->port_no_str;
	v6 = chosen->useinfo.name.len == 0 && chosen->address.af == AF_INET6 && host_part.s[0] != '[';
	contact->s = text;
	contact->len = snprintf(text, sizeof(text), "%s%.*s%s:%.*s", v6 ? "[" : "", STR_FMT(&host_part), v6 ? "]" : "",
			STR_FMT(&port));
	return contact->len < (int)sizeof(text) ? 0 : -1;
}

static int fill_config(rtc_json_config_t *c)
{
	if(params.contact.len == 0 && default_contact(&params.contact) < 0) {
		LM_ERR("Kamailio listens on no UDP socket: set the parameter contact to the host:port that goes into"
			   " Contact\n");
		return -1;
	}
	c->outbound_proxy = rtcj_from_str(&params.outbound_proxy);
	c->register_mode = rtcj_from_str(&params.register_mode);
	c->contact = rtcj_from_str(&params.contact);
	c->domain = rtcj_from_str(&params.domain);
	c->realm = rtcj_from_str(&params.realm);
	c->codecs = rtcj_from_str(&params.codecs);
	c->dn_chars = rtcj_from_str(&params.dn_chars);
	c->over_limit = rtcj_from_str(&params.over_limit);
	c->server_name = rtcj_from_str(&params.server_name);
	c->arena_path = rtcj_from_str(&params.arena_path);
	c->arena_size = params.arena_size;
	c->require_dtls = params.require_dtls;
	c->max_frame = params.max_frame;
	c->max_calls_per_agent = params.max_calls_per_agent;
	c->max_sessions_per_agent = params.max_sessions_per_agent;
	c->call_rate = params.call_rate;
	c->register_failures = params.register_failures;
	c->register_failures_address = params.register_failures_address;
	c->max_sockets_address = params.max_sockets_address;
	c->away_reply = params.away_reply;
	c->resume_grace = params.resume_grace;
	c->expires = params.expires;
	c->ring_timeout = params.ring_timeout;
	c->log_messages = params.log_messages;
	c->session_expires = params.session_expires;
	c->min_se = params.min_se;
	c->max_redirects = params.max_redirects;
	c->dtmf_mode = rtcj_from_str(&params.dtmf_mode);
	c->dtmf_duration = params.dtmf_duration;
	c->trickle = rtcj_from_str(&params.trickle);
	c->accept_refer = params.accept_refer;
	c->conference_prefix = rtcj_from_str(&params.conference_prefix);
	c->headers_in = rtcj_from_str(&params.headers_in);
	c->headers_out = rtcj_from_str(&params.headers_out);
	c->trusted_peers = rtcj_from_str(&params.trusted_peers);
	c->jwt_keys = rtcj_from_str(&params.jwt_keys);
	c->jwt_issuer = rtcj_from_str(&params.jwt_issuer);
	c->jwt_audience = rtcj_from_str(&params.jwt_audience);
	c->jwt_leeway = params.jwt_leeway;
	c->turn_uris = rtcj_from_str(&params.turn_uris);
	c->turn_secret = rtcj_from_str(&params.turn_secret);
	c->turn_ttl = params.turn_ttl;
	c->api_origins = rtcj_from_str(&params.api_origins);
	c->genesys_uri = rtcj_from_str(&params.genesys_uri);
	c->genesys_interval = params.genesys_interval;
	c->next_hop_interval = params.next_hop_interval;
	c->call_history = params.call_history;
	c->log_calls = params.log_calls;
	c->write_calls = rtcj_records_url.len > 0;
	c->node_secret = rtcj_from_str(&params.node_secret);
	return 0;
}

static void find_event_routes(void)
{
	size_t event, name;
	int route;

	for(event = 0; event < sizeof(event_routes) / sizeof(event_routes[0]); event++) {
		for(name = 0; name < 3; name++) {
			route = route_lookup(&event_rt, route_names[event][name]);
			if(event_routes[event] < 0 && route >= 0 && event_rt.rlist[route] != NULL)
				event_routes[event] = route;
		}
	}
}

static int mod_init(void)
{
	static const str local = str_init("local");
	char err[512] = "";

	if(rtcj_tm_init() < 0 || rtcj_ws_init(params.max_frame) < 0 || fill_config(&rtcj_config) < 0)
		return -1;
	if(rtc_json_init(&host, &rtcj_config, err, sizeof(err)) != 0) {
		LM_ERR("%s\n", err);
		return -1;
	}
	if(params.register_mode.len == local.len && memcmp(params.register_mode.s, local.s, local.len) == 0
			&& rtcj_db_init() < 0)
		return -1;
	if(rtcj_directory_init() < 0 || rtcj_records_init() < 0)
		return -1;
	if(rtcj_dmq_init() < 0)
		return -1;
	if(rtcj_rpc_init() < 0 || rtcj_stats_init() < 0)
		return -1;
	if(faked_msg_init() < 0)
		return -1;

	find_event_routes();
	/* rtc_json.hangup sends SIP from an RPC process */
	set_child_rpc_sip_mode();
	if(register_basic_timers(1 + (rtcj_records_url.len > 0)) < 0) {
		LM_ERR("cannot register the timer process\n");
		return -1;
	}
	return 0;
}

static void tick(unsigned int ticks, void *param)
{
	(void)ticks;
	(void)param;
	/* the main process ends all others in good order */
	if(rtc_json_tick() == 1)
		kill(pt[0].pid, SIGTERM);
}

static void records_tick(unsigned int ticks, void *param)
{
	(void)ticks;
	(void)param;
	rtc_json_records_write();
}

static int child_init(int rank)
{
	if(rank == PROC_INIT && params.memory_spares)
		rtcj_spares_shared();
	if(rank == PROC_INIT || rank == PROC_TCP_MAIN)
		return 0;
	if(rank == PROC_MAIN) {
		if(fork_basic_utimer(PROC_TIMER, "RTC_JSON TIMER", 1, tick, NULL, TICK_USEC) < 0) {
			LM_ERR("cannot start the timer process\n");
			return -1;
		}
		if(rtcj_records_url.len > 0 && fork_basic_timer(PROC_TIMER, "RTC_JSON RECORDS", 1, records_tick, NULL, 1) < 0) {
			LM_ERR("cannot start the process of the records\n");
			return -1;
		}
		return 0;
	}
	if(rtcj_process_ready())
		return 0; /* some processes come here twice */
	if(rtcj_db_child_init() < 0 || rtcj_directory_child_init() < 0)
		return -1;
	if(rtc_json_child_init(rank) != 0) {
		LM_ERR("cannot set up the core in this process\n");
		return -1;
	}
	ready_pid = getpid();
	/* last, so that nothing that stays takes of it; the processes without a rank of their own see few messages */
	if(params.memory_spares && rank > 0)
		rtcj_spares_private();
	return 0;
}

static void mod_destroy(void)
{
	rtcj_tm_destroy();
}

/* ---- exports ---- */

/* clang-format off */
static cmd_export_t cmds[] = {
	{"rtc_json_handle", (cmd_function)w_handle, 0, 0, 0, EVENT_ROUTE},
	{"rtc_json_reject", (cmd_function)w_reject, 2, fixup_spve_all, fixup_free_spve_all, EVENT_ROUTE},
	{"rtc_json_locate", (cmd_function)w_locate, 1, fixup_spve_null, fixup_free_spve_null, ANY_ROUTE},
	{"rtc_json_api_handle", (cmd_function)w_api_handle, 0, 0, 0, EVENT_ROUTE},
	{"rtc_json_socket_allowed", (cmd_function)w_socket_allowed, 0, 0, 0, EVENT_ROUTE},
	{0, 0, 0, 0, 0, 0}
};

static param_export_t mod_params[] = {
	{"outbound_proxy", PARAM_STR, &params.outbound_proxy},
	{"register_mode", PARAM_STR, &params.register_mode},
	{"contact", PARAM_STR, &params.contact},
	{"domain", PARAM_STR, &params.domain},
	{"realm", PARAM_STR, &params.realm},
	{"codecs", PARAM_STR, &params.codecs},
	{"dn_chars", PARAM_STR, &params.dn_chars},
	{"over_limit", PARAM_STR, &params.over_limit},
	{"server_name", PARAM_STR, &params.server_name},
	{"arena_path", PARAM_STR, &params.arena_path},
	{"arena_size", PARAM_INT, &params.arena_size},
	{"memory_spares", PARAM_INT, &params.memory_spares},
	{"require_dtls", PARAM_INT, &params.require_dtls},
	{"max_frame", PARAM_INT, &params.max_frame},
	{"max_calls_per_agent", PARAM_INT, &params.max_calls_per_agent},
	{"max_sessions_per_agent", PARAM_INT, &params.max_sessions_per_agent},
	{"call_rate", PARAM_INT, &params.call_rate},
	{"register_failures", PARAM_INT, &params.register_failures},
	{"register_failures_address", PARAM_INT, &params.register_failures_address},
	{"max_sockets_address", PARAM_INT, &params.max_sockets_address},
	{"away_reply", PARAM_INT, &params.away_reply},
	{"resume_grace", PARAM_INT, &params.resume_grace},
	{"expires", PARAM_INT, &params.expires},
	{"ring_timeout", PARAM_INT, &params.ring_timeout},
	{"log_messages", PARAM_INT, &params.log_messages},
	{"session_expires", PARAM_INT, &params.session_expires},
	{"min_se", PARAM_INT, &params.min_se},
	{"max_redirects", PARAM_INT, &params.max_redirects},
	{"dtmf_mode", PARAM_STR, &params.dtmf_mode},
	{"dtmf_duration", PARAM_INT, &params.dtmf_duration},
	{"trickle", PARAM_STR, &params.trickle},
	{"accept_refer", PARAM_INT, &params.accept_refer},
	{"conference_prefix", PARAM_STR, &params.conference_prefix},
	{"headers_in", PARAM_STR, &params.headers_in},
	{"headers_out", PARAM_STR, &params.headers_out},
	{"trusted_peers", PARAM_STR, &params.trusted_peers},
	{"jwt_keys", PARAM_STR, &params.jwt_keys},
	{"jwt_issuer", PARAM_STR, &params.jwt_issuer},
	{"jwt_audience", PARAM_STR, &params.jwt_audience},
	{"jwt_leeway", PARAM_INT, &params.jwt_leeway},
	{"turn_uris", PARAM_STR, &params.turn_uris},
	{"turn_secret", PARAM_STR, &params.turn_secret},
	{"turn_ttl", PARAM_INT, &params.turn_ttl},
	{"api_origins", PARAM_STR, &params.api_origins},
	{"genesys_uri", PARAM_STR, &params.genesys_uri},
	{"genesys_interval", PARAM_INT, &params.genesys_interval},
	{"next_hop_interval", PARAM_INT, &params.next_hop_interval},
	{"call_history", PARAM_INT, &params.call_history},
	{"log_calls", PARAM_INT, &params.log_calls},
	{"event_callback", PARAM_STR, &params.event_callback},
	{"node_secret", PARAM_STR, &params.node_secret},
	{"directory_url", PARAM_STR, &rtcj_directory_url},
	{"directory_table", PARAM_STR, &rtcj_directory_table},
	{"records_url", PARAM_STR, &rtcj_records_url},
	{"records_table", PARAM_STR, &rtcj_records_table},
	{"db_url", PARAM_STR, &rtcj_db_url},
	{"subscriber_table", PARAM_STR, &rtcj_subscriber_table},
	{"user_column", PARAM_STR, &rtcj_user_column},
	{"domain_column", PARAM_STR, &rtcj_domain_column},
	{"ha1_column", PARAM_STR, &rtcj_ha1_column},
	{"use_domain", PARAM_INT, &rtcj_use_domain},
	{0, 0, 0}
};

static pv_export_t mod_pvs[] = {
	{{"rtcj", sizeof("rtcj") - 1}, PVT_OTHER, pv_get_rtcj, 0, pv_parse_name, 0, 0, 0},
	{{0, 0}, 0, 0, 0, 0, 0, 0, 0}
};

struct module_exports exports = {
	"rtc_json",
	DEFAULT_DLFLAGS,
	cmds,
	mod_params,
	0, /* RPC: registered in mod_init */
	mod_pvs,
	0, /* replies: tm calls us */
	mod_init,
	child_init,
	mod_destroy
};

static sr_kemi_t kemi_exports[] = {
	{str_init("rtc_json"), str_init("handle"), SR_KEMIP_INT, ki_handle,
		{SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE}},
	{str_init("rtc_json"), str_init("reject"), SR_KEMIP_INT, ki_reject,
		{SR_KEMIP_INT, SR_KEMIP_STR, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE}},
	{str_init("rtc_json"), str_init("locate"), SR_KEMIP_INT, ki_locate,
		{SR_KEMIP_STR, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE}},
	{str_init("rtc_json"), str_init("api_handle"), SR_KEMIP_INT, rtcj_http_handle,
		{SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE}},
	{str_init("rtc_json"), str_init("socket_allowed"), SR_KEMIP_INT, rtcj_ws_allowed,
		{SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE, SR_KEMIP_NONE}},
	{{0, 0}, {0, 0}, 0, NULL, {0, 0, 0, 0, 0, 0}}
};
/* clang-format on */

/* Called when the module is loaded. */
int mod_register(char *path, int *dlflags, void *p1, void *p2)
{
	(void)path;
	(void)dlflags;
	(void)p1;
	(void)p2;
	if(rtcj_ws_register() < 0)
		return -1;
	return sr_kemi_modules_add(kemi_exports);
}
