using System.Data.Common;

namespace Drover.Workflows.Storage;

/// <summary>
/// One connection with its prepared statements. Not thread-safe. Values travel as parameters only; SQL texts are constants
/// in the canonical form described at <see cref="SqlDialect"/>, so that each is prepared once per connection.
/// </summary>
public class SqlSession(DbConnection connection, SqlDialect dialect, TimeProvider time) : IDisposable
{
    private readonly Dictionary<string, DbCommand> _commands = new(StringComparer.Ordinal);

    /// <summary>The dialect, for list parameters.</summary>
    public SqlDialect Dialect => dialect;

    /// <summary>The underlying connection, for the user's own commands on it.</summary>
    public DbConnection Connection => connection;

    /// <summary>The clock behind <c>{now}</c> on databases without a clock of their own.</summary>
    public TimeProvider Time => time;

    /// <summary>Milliseconds since the Unix epoch by <see cref="Time"/>.</summary>
    public long NowMs => time.GetUtcNow().ToUnixTimeMilliseconds();

    /// <summary>Runs a statement; returns the number of rows it changed.</summary>
    public virtual int Execute(string sql, params ReadOnlySpan<(string Name, object? Value)> args) =>
        Prepare(sql, args).ExecuteNonQuery();

    /// <summary>Runs a query and reads every row.</summary>
    public List<T> Query<T>(string sql, Func<DbDataReader, T> read, params ReadOnlySpan<(string Name, object? Value)> args)
    {
        using DbDataReader reader = Prepare(sql, args).ExecuteReader();
        var rows = new List<T>();
        while (reader.Read())
            rows.Add(read(reader));
        return rows;
    }

    /// <summary>Runs a query and reads its first row; the default value when there is none.</summary>
    public T? First<T>(string sql, Func<DbDataReader, T> read, params ReadOnlySpan<(string Name, object? Value)> args)
    {
        using DbDataReader reader = Prepare(sql, args).ExecuteReader();
        return reader.Read() ? read(reader) : default;
    }

    /// <summary>Runs a query of one number; 0 when there is no row or it is null.</summary>
    public virtual long Number(string sql, params ReadOnlySpan<(string Name, object? Value)> args)
    {
        using DbDataReader reader = Prepare(sql, args).ExecuteReader();
        return reader.Read() && !reader.IsDBNull(0) ? reader.GetInt64(0) : 0;
    }

    /// <summary>Runs a query of one text; null when there is no row or it is null.</summary>
    public string? Text(string sql, params ReadOnlySpan<(string Name, object? Value)> args)
    {
        using DbDataReader reader = Prepare(sql, args).ExecuteReader();
        return reader.Read() && !reader.IsDBNull(0) ? reader.GetString(0) : null;
    }

    private DbCommand Prepare(string sql, ReadOnlySpan<(string Name, object? Value)> args)
    {
        if (!_commands.TryGetValue(sql, out DbCommand? command))
        {
            command = connection.CreateCommand();
            command.CommandText = dialect.Expand(sql);
            foreach ((string name, _) in args)
                AddParameter(command, name);
            if (command.CommandText.Contains("@now", StringComparison.Ordinal) && !Contains(args, "@now"))
                AddParameter(command, "@now");
            _commands.Add(sql, command);
        }

        // Parameters keep the order of the first call: every caller of one text passes the same names in the same order.
        DbParameterCollection parameters = command.Parameters;
        for (int i = 0; i < args.Length; i++)
            parameters[i].Value = args[i].Value ?? DBNull.Value;
        if (parameters.Count > args.Length)
            parameters[args.Length].Value = NowMs;
        return command;
    }

    private static bool Contains(ReadOnlySpan<(string Name, object? Value)> args, string name)
    {
        foreach ((string given, _) in args)
        {
            if (given == name)
                return true;
        }
        return false;
    }

    private static void AddParameter(DbCommand command, string name)
    {
        DbParameter parameter = command.CreateParameter();
        parameter.ParameterName = name;
        command.Parameters.Add(parameter);
    }

    /// <summary>Closes the connection and its statements.</summary>
    public void Dispose()
    {
        Dispose(true);
        GC.SuppressFinalize(this);
    }

    /// <summary>Closes the connection and its statements.</summary>
    protected virtual void Dispose(bool disposing)
    {
        if (!disposing)
            return;
        foreach (DbCommand command in _commands.Values)
            command.Dispose();
        _commands.Clear();
        connection.Dispose();
    }
}

/// <summary>Small readers for nullable columns.</summary>
public static class DbReaderExtensions
{
    /// <summary>The text at a column, or null.</summary>
    public static string? TextOrNull(this DbDataReader reader, int column)
    {
        ArgumentNullException.ThrowIfNull(reader);
        return reader.IsDBNull(column) ? null : reader.GetString(column);
    }

    /// <summary>The number at a column, or null.</summary>
    public static long? NumberOrNull(this DbDataReader reader, int column)
    {
        ArgumentNullException.ThrowIfNull(reader);
        return reader.IsDBNull(column) ? null : reader.GetInt64(column);
    }
}
