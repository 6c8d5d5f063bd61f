using System.Text;
using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace Drover.Workflows.Sqlite;

/// <summary>
/// Prepared statements without rows, bound directly: the provider looks every parameter up by name and allocates a reader at
/// every execution, which costs more than SQLite itself needs for a step.
/// </summary>
internal sealed class RawStatements(sqlite3 handle) : IDisposable
{
    private const uint Persistent = 1;

    // Null: a text that only the provider can run (several statements in one).
    private readonly Dictionary<string, Statement?> _statements = new(StringComparer.Ordinal);
    private byte[] _utf8 = new byte[512];
    private string? _latestSql;
    private Statement? _latest;

    /// <summary>Runs a statement; false when it, or one of its values, is left to the provider.</summary>
    public bool TryExecute(string sql, Func<string, string> expand, ReadOnlySpan<(string Name, object? Value)> args, long now, out int rows)
    {
        rows = 0;
        if (Bound(sql, expand, args, now) is not { } statement)
            return false;
        while (Step(statement))
        {
        }
        rows = statement.ReadOnly ? -1 : raw.sqlite3_changes(handle);
        Check(raw.sqlite3_reset(statement.Handle));
        return true;
    }

    /// <summary>Runs a query of one number: 0 when there is no row or it is null.</summary>
    public bool TryNumber(string sql, Func<string, string> expand, ReadOnlySpan<(string Name, object? Value)> args, long now, out long number)
    {
        number = 0;
        if (Bound(sql, expand, args, now) is not { } statement)
            return false;
        if (Step(statement))
            number = raw.sqlite3_column_int64(statement.Handle, 0);
        Check(raw.sqlite3_reset(statement.Handle));
        return true;
    }

    private bool Step(Statement statement)
    {
        int result = raw.sqlite3_step(statement.Handle);
        if (result is raw.SQLITE_ROW or raw.SQLITE_DONE)
            return result == raw.SQLITE_ROW;
        SqliteException error = Error(result);
        _ = raw.sqlite3_reset(statement.Handle);
        throw error;
    }

    private Statement? Bound(string sql, Func<string, string> expand, ReadOnlySpan<(string Name, object? Value)> args, long now)
    {
        Statement? statement = Find(sql, expand, args);
        if (statement is null || !Bindable(args))
            return null;
        for (int i = 0; i < args.Length; i++)
        {
            if (statement.Positions[i] > 0)
                Bind(statement.Handle, statement.Positions[i], args[i].Value);
        }
        if (statement.NowPosition > 0)
            Check(raw.sqlite3_bind_int64(statement.Handle, statement.NowPosition, now));
        return statement;
    }

    private Statement? Find(string sql, Func<string, string> expand, ReadOnlySpan<(string Name, object? Value)> args)
    {
        if (ReferenceEquals(sql, _latestSql))
            return _latest;
        if (!_statements.TryGetValue(sql, out Statement? statement))
            _statements.Add(sql, statement = Prepare(expand(sql), args));
        (_latestSql, _latest) = (sql, statement);
        return statement;
    }

    private Statement? Prepare(string sql, ReadOnlySpan<(string Name, object? Value)> args)
    {
        Check(raw.sqlite3_prepare_v3(handle, sql, Persistent, out sqlite3_stmt prepared, out string? tail));
        if (prepared.IsInvalid || !string.IsNullOrWhiteSpace(tail))
        {
            prepared.Dispose();
            return null;
        }
        int[] positions = new int[args.Length];
        int now = raw.sqlite3_bind_parameter_index(prepared, "@now");
        for (int i = 0; i < args.Length; i++)
        {
            positions[i] = raw.sqlite3_bind_parameter_index(prepared, args[i].Name);
            if (args[i].Name == "@now")
                now = 0;
        }
        return new Statement(prepared, positions, now, raw.sqlite3_stmt_readonly(prepared) != 0);
    }

    private static bool Bindable(ReadOnlySpan<(string Name, object? Value)> args)
    {
        foreach ((_, object? value) in args)
        {
            if (value is not (null or string or long or int or bool or double))
                return false;
        }
        return true;
    }

    private void Bind(sqlite3_stmt statement, int position, object? value)
    {
        switch (value)
        {
            case null:
                Check(raw.sqlite3_bind_null(statement, position));
                break;
            case string { Length: 0 }:
                // An empty span has no address, and SQLite takes a null address for NULL.
                Check(raw.sqlite3_bind_text(statement, position, ""));
                break;
            case string text:
                int most = Encoding.UTF8.GetMaxByteCount(text.Length);
                if (_utf8.Length < most)
                    _utf8 = new byte[most];
                Check(raw.sqlite3_bind_text(statement, position, _utf8.AsSpan(0, Encoding.UTF8.GetBytes(text, _utf8))));
                break;
            case long number:
                Check(raw.sqlite3_bind_int64(statement, position, number));
                break;
            case int number:
                Check(raw.sqlite3_bind_int64(statement, position, number));
                break;
            case bool flag:
                Check(raw.sqlite3_bind_int64(statement, position, flag ? 1 : 0));
                break;
            case double real:
                Check(raw.sqlite3_bind_double(statement, position, real));
                break;
        }
    }

    private void Check(int result)
    {
        if (result != raw.SQLITE_OK)
            throw Error(result);
    }

    private SqliteException Error(int result) => new(
        $"SQLite Error {result}: '{raw.sqlite3_errmsg(handle).utf8_to_string()}'.", result & 0xff, raw.sqlite3_extended_errcode(handle));

    public void Dispose()
    {
        foreach (Statement? statement in _statements.Values)
            statement?.Handle.Dispose();
        _statements.Clear();
    }

    private sealed record Statement(sqlite3_stmt Handle, int[] Positions, int NowPosition, bool ReadOnly);
}
