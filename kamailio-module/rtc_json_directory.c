/* rtc_json_directory.c: who the agents are, from a table by way of srdb1. The core has the copy that everybody reads. */
#include <stdio.h>
#include <string.h>

#include "core/dprint.h"
#include "lib/srdb1/db.h"
#include "lib/srdb1/db_cap.h"

#include "rtc_json_mod.h"

/* Rows of one query: all of them at once would not fit into the memory of a process. */
#define ROWS_AT_ONCE 500

str rtcj_directory_url = STR_NULL;
str rtcj_directory_table = str_init("rtc_json_directory");

static str dn_column = str_init("dn");
static str skills_column = str_init("skills");

static db_func_t dbf;
static db1_con_t *db;

static rtc_json_str_t text_of(const db_val_t *value)
{
	if(VAL_NULL(value))
		return rtcj_from_text(NULL, 0);
	switch(VAL_TYPE(value)) {
		case DB1_STRING:
			return rtcj_from_text(VAL_STRING(value), strlen(VAL_STRING(value)));
		case DB1_STR:
		case DB1_BLOB:
			return rtcj_from_str(&VAL_STR(value));
		default:
			return rtcj_from_text(NULL, 0);
	}
}

/* Gives the core the rows from `offset` on. Their number, or -1. */
static int load_some(int offset)
{
	char text[256];
	str query = {text, 0};
	db1_res_t *rows = NULL;
	const db_val_t *value;
	int i, n;

	query.len = snprintf(text, sizeof(text),
			"SELECT dn, display_name, genesys_agent, skills FROM %.*s ORDER BY dn LIMIT %d OFFSET %d",
			STR_FMT(&rtcj_directory_table), ROWS_AT_ONCE, offset);
	if(query.len >= (int)sizeof(text) || dbf.raw_query(db, &query, &rows) < 0 || rows == NULL)
		return -1;
	n = RES_ROW_N(rows);
	for(i = 0; i < n; i++) {
		value = ROW_VALUES(RES_ROWS(rows) + i);
		if(rtc_json_directory_row(text_of(value), text_of(value + 1), text_of(value + 2), text_of(value + 3)) < 0) {
			n = -1;
			break;
		}
	}
	dbf.free_result(db, rows);
	return n;
}

int rtcj_directory_load(void)
{
	int total = 0, n;

	if(db == NULL)
		return -1;
	rtc_json_directory_begin();
	do {
		n = load_some(total);
		if(n < 0) {
			LM_ERR("the directory cannot be read from the table %.*s; what was known before stays\n",
					STR_FMT(&rtcj_directory_table));
			return -1;
		}
		total += n;
	} while(n == ROWS_AT_ONCE);
	rtc_json_directory_end();
	return total;
}

int rtcj_directory_init(void)
{
	int ret;

	if(rtcj_directory_url.len == 0)
		return 0;
	if(db_bind_mod(&rtcj_directory_url, &dbf) < 0) {
		LM_ERR("no database module for directory_url: load one, e.g. db_sqlite.so, before rtc_json.so\n");
		return -1;
	}
	if(!DB_CAPABILITY(dbf, DB_CAP_QUERY | DB_CAP_RAW_QUERY | DB_CAP_INSERT | DB_CAP_UPDATE)) {
		LM_ERR("the database module of directory_url cannot do what the directory needs\n");
		return -1;
	}
	/* before the workers start, so that a wrong URL or table stops the server with one message */
	if(rtcj_directory_child_init() < 0)
		return -1;
	ret = rtcj_directory_load();
	dbf.close(db);
	db = NULL;
	return ret < 0 ? -1 : 0;
}

int rtcj_directory_child_init(void)
{
	if(dbf.init == NULL || db != NULL)
		return 0;
	db = dbf.init(&rtcj_directory_url);
	if(db == NULL) {
		LM_ERR("cannot connect to directory_url\n");
		return -1;
	}
	return 0;
}

int32_t rtcj_directory_write(rtc_json_str_t dn, rtc_json_str_t skills)
{
	db_key_t keys[2] = {&dn_column, &skills_column};
	db_val_t values[2];
	db1_res_t *rows = NULL;
	int known;

	if(rtcj_directory_url.len == 0)
		return 0;
	if(db == NULL || dbf.use_table(db, &rtcj_directory_table) < 0)
		return -1;
	memset(values, 0, sizeof(values));
	VAL_TYPE(&values[0]) = VAL_TYPE(&values[1]) = DB1_STR;
	VAL_STR(&values[0]) = rtcj_to_str(dn);
	VAL_STR(&values[1]) = rtcj_to_str(skills);
	if(VAL_STR(&values[1]).s == NULL)
		VAL_STR(&values[1]).s = "";
	if(dbf.query(db, keys, NULL, values, keys, 1, 1, NULL, &rows) < 0 || rows == NULL)
		return -1;
	known = RES_ROW_N(rows) > 0;
	dbf.free_result(db, rows);
	if(known)
		return dbf.update(db, keys, NULL, values, keys + 1, values + 1, 1, 1) < 0 ? -1 : 0;
	return dbf.insert(db, keys, values, 2) < 0 ? -1 : 0;
}
