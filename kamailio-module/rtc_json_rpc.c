/* rtc_json_rpc.c: RPC commands and statistics. */
#include <limits.h>
#include <stdint.h>
#include <string.h>

#include "core/counters.h"
#include "core/dprint.h"
#include "core/rpc.h"
#include "core/rpc_lookup.h"

#include "rtc_json_mod.h"

#if VERSIONVAL >= 6000000
#define RPC_LIST RPC_RET_ARRAY
#else
#define RPC_LIST RET_ARRAY
#endif

/* The answer that the core writes row by row. */
typedef struct answer
{
	rpc_t *rpc;
	void *ctx;
	void *row;
} answer_t;

static void row_begin(void *ctx)
{
	answer_t *a = ctx;

	a->row = NULL;
	if(a->rpc->add(a->ctx, "{", &a->row) < 0)
		a->row = NULL;
}

static void row_text(void *ctx, const char *name, rtc_json_str_t value)
{
	answer_t *a = ctx;
	str s = rtcj_to_str(value);

	if(s.s == NULL)
		s.s = "";
	if(a->row != NULL)
		a->rpc->struct_add(a->row, "S", name, &s);
}

static void row_number(void *ctx, const char *name, int64_t value)
{
	answer_t *a = ctx;

	if(a->row == NULL)
		return;
	if(value >= INT_MIN && value <= INT_MAX)
		a->rpc->struct_add(a->row, "d", name, (int)value);
	else
		a->rpc->struct_add(a->row, "L", name, (long long)value);
}

static void row_end(void *ctx)
{
	((answer_t *)ctx)->row = NULL;
}

static rtc_json_rpc_sink_t sink_of(answer_t *a)
{
	rtc_json_rpc_sink_t sink = {a, row_begin, row_text, row_number, row_end};
	return sink;
}

static void rpc_agents(rpc_t *rpc, void *ctx)
{
	answer_t a = {rpc, ctx, NULL};
	rtc_json_rpc_sink_t sink = sink_of(&a);

	if(rtc_json_rpc_agents(&sink) < 0)
		rpc->fault(ctx, 500, "Internal Error");
}

static void rpc_agent(rpc_t *rpc, void *ctx)
{
	answer_t a = {rpc, ctx, NULL};
	rtc_json_rpc_sink_t sink = sink_of(&a);
	str dn;

	/* the dot takes a number, too: most DNs look like one */
	if(rpc->scan(ctx, ".S", &dn) < 1) {
		rpc->fault(ctx, 400, "Parameter missing: dn");
		return;
	}
	if(rtc_json_rpc_agent(rtcj_from_str(&dn), &sink) < 0)
		rpc->fault(ctx, 404, "No such agent");
}

static void rpc_calls(rpc_t *rpc, void *ctx)
{
	answer_t a = {rpc, ctx, NULL};
	rtc_json_rpc_sink_t sink = sink_of(&a);

	if(rtc_json_rpc_calls(&sink) < 0)
		rpc->fault(ctx, 500, "Internal Error");
}

static void rpc_nodes(rpc_t *rpc, void *ctx)
{
	answer_t a = {rpc, ctx, NULL};
	rtc_json_rpc_sink_t sink = sink_of(&a);

	if(rtc_json_rpc_nodes(&sink) < 0)
		rpc->fault(ctx, 400, "node_secret is not set");
}

static void rpc_hangup(rpc_t *rpc, void *ctx)
{
	str call_id;

	if(rpc->scan(ctx, ".S", &call_id) < 1) {
		rpc->fault(ctx, 400, "Parameter missing: callId");
		return;
	}
	if(rtc_json_rpc_hangup(rtcj_from_str(&call_id)) < 0)
		rpc->fault(ctx, 404, "No such call");
}

static void rpc_drain(rpc_t *rpc, void *ctx)
{
	answer_t a = {rpc, ctx, NULL};
	rtc_json_rpc_sink_t sink = sink_of(&a);
	static const str stop = str_init("stop");
	str given;
	int mode;

	if(rpc->scan(ctx, "*.S", &given) < 1) {
		mode = 1;
	} else if(given.len == 1 && (given.s[0] == '0' || given.s[0] == '1')) {
		mode = given.s[0] - '0';
	} else if(given.len == stop.len && memcmp(given.s, stop.s, stop.len) == 0) {
		mode = 2;
	} else {
		rpc->fault(ctx, 400, "Parameter must be 1 (drain), stop (and end when empty) or 0 (no longer)");
		return;
	}
	if(rtc_json_rpc_drain(mode, &sink) < 0)
		rpc->fault(ctx, 500, "Internal Error");
}

static void rpc_stats(rpc_t *rpc, void *ctx)
{
	answer_t a = {rpc, ctx, NULL};
	rtc_json_rpc_sink_t sink = sink_of(&a);

	if(rtc_json_rpc_stats(&sink) < 0)
		rpc->fault(ctx, 500, "Internal Error");
}

static void rpc_reload(rpc_t *rpc, void *ctx)
{
	void *row;
	int n;

	if(rtcj_directory_url.len == 0) {
		rpc->fault(ctx, 400, "directory_url is not set");
		return;
	}
	n = rtcj_directory_load();
	if(n < 0) {
		rpc->fault(ctx, 500, "The directory cannot be read");
		return;
	}
	if(rpc->add(ctx, "{", &row) >= 0)
		rpc->struct_add(row, "d", "agents", n);
}

static const char *agents_doc[] = {"List the agents that are registered, one row each. No parameters.", 0};
static const char *agent_doc[] = {"Show one agent with its sessions and calls. Parameter: dn.", 0};
static const char *calls_doc[] = {"List the calls, one row each. No parameters.", 0};
static const char *drain_doc[] = {
		"Take no new calls and sessions, and tell all browsers. Parameter (optional): stop also ends Kamailio when it is"
		" empty, 0 takes them again.", 0};
static const char *hangup_doc[] = {"End a call on both sides. Parameter: callId, as rtc_json.calls shows it.", 0};
static const char *nodes_doc[] = {"List the nodes, one row each, this one first. No parameters.", 0};
static const char *reload_doc[] = {"Read the directory from its table anew. No parameters.", 0};
static const char *stats_doc[] = {"Show the statistics of the module. No parameters.", 0};

/* clang-format off */
static rpc_export_t commands[] = {
	{"rtc_json.agents", rpc_agents, agents_doc, RPC_LIST},
	{"rtc_json.agent", rpc_agent, agent_doc, RPC_LIST},
	{"rtc_json.calls", rpc_calls, calls_doc, RPC_LIST},
	{"rtc_json.drain", rpc_drain, drain_doc, 0},
	{"rtc_json.hangup", rpc_hangup, hangup_doc, 0},
	{"rtc_json.nodes", rpc_nodes, nodes_doc, RPC_LIST},
	{"rtc_json.reload", rpc_reload, reload_doc, 0},
	{"rtc_json.stats", rpc_stats, stats_doc, 0},
	{0, 0, 0, 0}
};
/* clang-format on */

int rtcj_rpc_init(void)
{
	if(rpc_register_array(commands) != 0) {
		LM_ERR("cannot register the RPC commands\n");
		return -1;
	}
	return 0;
}

static counter_val_t counter_value(counter_handle_t h, void *id)
{
	(void)h;
	return (counter_val_t)rtc_json_stat_value((uint32_t)(uintptr_t)id);
}

int rtcj_stats_init(void)
{
	const char *name;
	uint32_t id;

	for(id = 0; (name = rtc_json_stat_name(id)) != NULL; id++) {
		/* the core keeps the values where all processes see them, so a reset by Kamailio would do nothing */
		if(counter_register(NULL, "rtc_json", name, CNT_F_NO_RESET, counter_value, (void *)(uintptr_t)id,
				   rtc_json_stat_doc(id), 0)
				< 0) {
			LM_ERR("cannot register the statistic %s\n", name);
			return -1;
		}
	}
	return 0;
}
