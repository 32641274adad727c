/* rtc_json_records.c: records of calls into a table by way of srdb1, from a process of their own: a database that is slow or away
 * holds nobody up. */
#include <string.h>

#include "core/dprint.h"
#include "lib/srdb1/db.h"
#include "lib/srdb1/db_cap.h"

#include "rtc_json_mod.h"

str rtcj_records_url = STR_NULL;
str rtcj_records_table = str_init("rtc_json_calls");

/* clang-format off */
static str columns[] = {
	str_init("call_id"), str_init("sip_call_id"), str_init("dn"), str_init("direction"), str_init("caller"), str_init("callee"),
	str_init("started"), str_init("reason"), str_init("transferred_to"), str_init("transfers"), str_init("answered"), str_init("duration"), str_init("code"), str_init("cause"),
	str_init("ring_after"), str_init("answer_after"), str_init("recorded"),
};
/* clang-format on */
#define COLUMNS (sizeof(columns) / sizeof(columns[0]))

static db_func_t dbf;
static db1_con_t *db;

int rtcj_records_init(void)
{
	if(rtcj_records_url.len == 0)
		return 0;
	if(db_bind_mod(&rtcj_records_url, &dbf) < 0) {
		LM_ERR("no database module for records_url: load one, e.g. db_sqlite.so, before rtc_json.so\n");
		return -1;
	}
	if(!DB_CAPABILITY(dbf, DB_CAP_QUERY | DB_CAP_INSERT)) {
		LM_ERR("the database module of records_url cannot do what the records need\n");
		return -1;
	}
	/* before the workers start, so that a wrong URL stops the server with one message */
	db = dbf.init(&rtcj_records_url);
	if(db == NULL) {
		LM_ERR("cannot connect to records_url\n");
		return -1;
	}
	dbf.close(db);
	db = NULL;
	return 0;
}

static int is_written(db_key_t *keys, db_val_t *values)
{
	db1_res_t *rows = NULL;
	int n;

	if(dbf.query(db, keys, NULL, values, keys, 1, 1, NULL, &rows) < 0 || rows == NULL)
		return -1;
	n = RES_ROW_N(rows);
	dbf.free_result(db, rows);
	return n > 0;
}

int32_t rtcj_record_write(const rtc_json_call_record_t *record)
{
	const rtc_json_str_t texts[] = {record->call_id, record->sip_call_id, record->dn, record->direction, record->caller,
			record->callee, record->started, record->reason, record->transferred_to, record->transfers};
	const int64_t numbers[] = {record->answered, record->duration, record->code, record->cause, record->ring_after,
			record->answer_after, record->recorded};
	const size_t n_texts = sizeof(texts) / sizeof(texts[0]);
	db_key_t keys[COLUMNS];
	db_val_t values[COLUMNS];
	size_t i;
	int known;

	if(db == NULL)
		db = dbf.init != NULL ? dbf.init(&rtcj_records_url) : NULL;
	if(db == NULL || dbf.use_table(db, &rtcj_records_table) < 0)
		return -1;
	memset(values, 0, sizeof(values));
	for(i = 0; i < COLUMNS; i++) {
		keys[i] = &columns[i];
		if(i < n_texts) {
			VAL_TYPE(&values[i]) = DB1_STR;
			VAL_STR(&values[i]) = rtcj_to_str(texts[i]);
			if(VAL_STR(&values[i]).s == NULL)
				VAL_STR(&values[i]).s = "";
		} else {
			VAL_TYPE(&values[i]) = DB1_INT;
			VAL_INT(&values[i]) = (int)numbers[i - n_texts];
		}
	}
	/* it may be the second try of one whose first was cut off behind the insert */
	known = is_written(keys, values);
	if(known != 0)
		return known < 0 ? -1 : 0;
	return dbf.insert(db, keys, values, COLUMNS) < 0 ? -2 : 0;
}
