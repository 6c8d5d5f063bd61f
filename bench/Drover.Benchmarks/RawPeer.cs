using System.Diagnostics;
using Drover.Workflows.Sqlite;
using Microsoft.Data.Sqlite;
using SQLitePCL;

namespace Drover.Benchmarks;

/// <summary>
/// What the library itself can do: one thread, one connection, prepared statements, the engine's tables, indexes, file settings and
/// fence; no lock file, no other thread, nobody to answer.
/// </summary>
internal sealed class RawPeer : IDisposable
{
    private const string Step = """
        INSERT INTO operation_outputs (workflow_uuid, function_id, function_name, output, error, child_workflow_id,
            started_at_epoch_ms, completed_at_epoch_ms, serialization, application_name, retention_timestamp)
        SELECT @id, @fid, @name, @output, @error, @child, @t0, @t1, 'portable_json', @app, @t1
        FROM workflow_status WHERE workflow_uuid = @id AND status = 'PENDING' AND owner_xid = @token
        ON CONFLICT (workflow_uuid, function_id) DO NOTHING
        """;

    private const string Status = """
        INSERT INTO workflow_status (workflow_uuid, status, name, authenticated_user, assumed_role, authenticated_roles, executor_id,
            created_at, updated_at, application_version, application_id, recovery_attempts, priority, owner_xid, serialization,
            application_name, creator_xid)
        VALUES (@id, 'PENDING', 'ten', '', '', '[]', 'executor', @t0, @t0, 'v1', '', 1, 0, @token, 'portable_json', 'bench', @token)
        """;

    private readonly SqliteConnection _connection;
    private readonly RawStatements _statements;

    public RawPeer(string path)
    {
        _connection = new SqliteConnection($"Data Source={path};Pooling=False");
        _connection.Open();
        Execute("PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = 4000; PRAGMA cache_size = -16000; PRAGMA temp_store = MEMORY");
        _statements = new RawStatements(_connection.Handle!);
    }

    private static long Now => DateTimeOffset.UtcNow.ToUnixTimeMilliseconds();

    /// <summary>One commit per step, nothing but steps. Returns steps per second, and each commit's time when asked.</summary>
    public double OneByOne(TimeSpan length, List<double>? micros = null)
    {
        int steps = 0;
        var watch = Stopwatch.StartNew();
        while (watch.Elapsed < length)
        {
            (string Id, string Token)[] one = Begin(1);
            for (int fid = 0; fid < 10; fid++, steps++)
            {
                long started = Stopwatch.GetTimestamp();
                Run("BEGIN IMMEDIATE");
                Insert(one[0], fid);
                Run("COMMIT");
                micros?.Add(Stopwatch.GetElapsedTime(started).TotalMicroseconds);
            }
        }
        return steps / watch.Elapsed.TotalSeconds;
    }

    /// <summary>Whole workflows of ten steps, as many at once as a batch holds: the same rows as the engine writes.</summary>
    public double Batches(int size, TimeSpan length)
    {
        int steps = 0;
        var watch = Stopwatch.StartNew();
        while (watch.Elapsed < length)
        {
            (string Id, string Token)[] all = Begin(size);
            for (int fid = 0; fid < 10; fid++)
            {
                Run("BEGIN IMMEDIATE");
                foreach ((string, string) workflow in all)
                    Insert(workflow, fid);
                Run("COMMIT");
            }
            Run("BEGIN IMMEDIATE");
            foreach ((string id, string token) in all)
            {
                Run("UPDATE workflow_status SET status = 'SUCCESS', owner_xid = NULL, deduplication_id = NULL, completed_at = @at, updated_at = @at WHERE workflow_uuid = @id AND status = 'PENDING' AND owner_xid = @token",
                    ("@at", Now), ("@id", id), ("@token", token));
                Run("INSERT INTO workflow_output (workflow_uuid, output, error, retention_timestamp) VALUES (@id, '10', NULL, @at) ON CONFLICT (workflow_uuid) DO UPDATE SET output = excluded.output",
                    ("@id", id), ("@at", Now));
            }
            Run("COMMIT");
            steps += 10 * size;
        }
        return steps / watch.Elapsed.TotalSeconds;
    }

    private (string Id, string Token)[] Begin(int size)
    {
        var all = new (string Id, string Token)[size];
        Run("BEGIN IMMEDIATE");
        for (int i = 0; i < size; i++)
        {
            all[i] = (Guid.CreateVersion7().ToString(), Guid.NewGuid().ToString());
            Run(Status, ("@id", all[i].Id), ("@t0", Now), ("@token", all[i].Token));
            Run("INSERT INTO workflow_input (workflow_uuid, inputs, retention_timestamp) VALUES (@id, '{\"positionalArgs\":[10]}', @at)", ("@id", all[i].Id), ("@at", Now));
        }
        Run("COMMIT");
        return all;
    }

    private void Insert((string Id, string Token) workflow, int fid) => Run(Step,
        ("@id", workflow.Id), ("@fid", (long)fid), ("@name", "step"), ("@output", SqliteBenchmark.Result), ("@error", null), ("@child", null),
        ("@t0", Now), ("@t1", Now), ("@app", "bench"), ("@token", workflow.Token));

    private void Run(string sql, params ReadOnlySpan<(string Name, object? Value)> args) =>
        _ = _statements.TryExecute(sql, static text => text, args, 0, out _);

    private void Execute(string sql)
    {
        using SqliteCommand command = _connection.CreateCommand();
        command.CommandText = sql;
        command.ExecuteNonQuery();
    }

    public void Dispose()
    {
        _statements.Dispose();
        _connection.Dispose();
    }
}
