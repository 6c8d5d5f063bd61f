using Drover.Workflows.Storage;

namespace Drover.Orchestrator.Backlog;

/// <summary>The orchestrator's own tables, beside the engine's in the same database.</summary>
public static class BacklogSchema
{
    /// <summary>All migrations of the component <c>orchestrator</c>.</summary>
    public static MigrationSet Migrations { get; } = new("orchestrator", [Version1]);

    // Index names carry no {d}: PostgreSQL takes the schema from the table and refuses a qualified index name.
    private static string Version1 => $$"""
        CREATE TABLE {d}projects (
            project TEXT NOT NULL PRIMARY KEY,
            event_seq BIGINT NOT NULL DEFAULT 0,
            task_seq BIGINT NOT NULL DEFAULT 0)
        ;;
        CREATE TABLE {d}epics (
            project TEXT NOT NULL,
            id TEXT NOT NULL,
            title TEXT NOT NULL,
            description TEXT NOT NULL DEFAULT '',
            created_at BIGINT NOT NULL,
            created_seq BIGINT NOT NULL,
            PRIMARY KEY (project, id))
        ;;
        CREATE TABLE {d}tasks (
            project TEXT NOT NULL,
            id TEXT NOT NULL,
            epic TEXT,
            parent TEXT,
            sequence BIGINT NOT NULL DEFAULT 0,
            title TEXT NOT NULL,
            description TEXT NOT NULL DEFAULT '',
            type TEXT NOT NULL DEFAULT 'other',
            labels TEXT,
            priority BIGINT NOT NULL DEFAULT 0,
            status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ({{TaskStates.SqlWords}})),
            pause_reason TEXT,
            question TEXT,
            answer TEXT,
            answer_note TEXT,
            test_command TEXT,
            max_attempts BIGINT,
            attempts BIGINT NOT NULL DEFAULT 0,
            consumed BIGINT NOT NULL DEFAULT 0,
            continues BIGINT,
            outcome TEXT,
            noop_reason TEXT,
            last_error TEXT,
            error_class TEXT,
            landed_oid TEXT,
            landed_at BIGINT,
            run_id TEXT,
            claimed_at BIGINT,
            not_before BIGINT,
            workflow_id TEXT,
            created_at BIGINT NOT NULL,
            created_seq BIGINT NOT NULL,
            updated_at BIGINT NOT NULL,
            PRIMARY KEY (project, id),
            CHECK ((status = 'paused') = (pause_reason IS NOT NULL)),
            CHECK ((status = 'completed') = (outcome IS NOT NULL)))
        ;;
        CREATE INDEX ix_drover_tasks_status ON {d}tasks (project, status)
        ;;
        CREATE INDEX ix_drover_tasks_parent ON {d}tasks (project, parent)
        ;;
        CREATE TABLE {d}task_dependencies (
            project TEXT NOT NULL,
            task TEXT NOT NULL,
            blocked_by TEXT NOT NULL,
            PRIMARY KEY (project, task, blocked_by),
            FOREIGN KEY (project, task) REFERENCES {d}tasks (project, id),
            FOREIGN KEY (project, blocked_by) REFERENCES {d}tasks (project, id),
            CHECK (task <> blocked_by))
        ;;
        CREATE INDEX ix_drover_dependencies_blocker ON {d}task_dependencies (project, blocked_by)
        ;;
        CREATE TABLE {d}attempts (
            project TEXT NOT NULL,
            task TEXT NOT NULL,
            n BIGINT NOT NULL,
            continuation BIGINT NOT NULL DEFAULT 0,
            run_id TEXT,
            workflow_id TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('claimed', 'running', 'released', 'paused', 'ended')),
            phase TEXT,
            base_oid TEXT,
            worktree TEXT,
            branch TEXT,
            agent TEXT,
            session_id TEXT,
            work_oid TEXT,
            tree_oid TEXT,
            claimed_at BIGINT NOT NULL,
            started_at BIGINT,
            ended_at BIGINT,
            outcome TEXT,
            error_class TEXT,
            error TEXT,
            gate_output TEXT,
            turns BIGINT NOT NULL DEFAULT 0,
            conflict_turn_used BIGINT NOT NULL DEFAULT 0,
            conflict TEXT,
            consumed BIGINT NOT NULL DEFAULT 1,
            tokens BIGINT,
            cost_micros BIGINT,
            log_path TEXT,
            PRIMARY KEY (project, task, n),
            FOREIGN KEY (project, task) REFERENCES {d}tasks (project, id))
        ;;
        CREATE TABLE {d}targets (
            project TEXT NOT NULL,
            target TEXT NOT NULL,
            touched BIGINT NOT NULL DEFAULT 0,
            PRIMARY KEY (project, target))
        ;;
        CREATE TABLE {d}landings (
            project TEXT NOT NULL,
            task TEXT NOT NULL,
            attempt BIGINT NOT NULL,
            target TEXT NOT NULL,
            work_oid TEXT NOT NULL,
            tree_oid TEXT,
            state TEXT NOT NULL CHECK (state IN ('waiting', 'intended', 'landed', 'withdrawn', 'conflict', 'red', 'held')),
            intended_oid TEXT,
            intended_base TEXT,
            message TEXT,
            commit_date TEXT,
            evidence TEXT,
            hold_reason TEXT,
            hold_paths TEXT,
            queued_at BIGINT NOT NULL,
            queued_seq BIGINT NOT NULL,
            updated_at BIGINT NOT NULL,
            PRIMARY KEY (project, task, attempt),
            FOREIGN KEY (project, task) REFERENCES {d}tasks (project, id),
            CHECK (state <> 'intended' OR (intended_oid IS NOT NULL AND intended_base IS NOT NULL)))
        ;;
        CREATE INDEX ix_drover_landings_state ON {d}landings (project, target, state)
        ;;
        CREATE TABLE {d}gate_results (
            project TEXT NOT NULL,
            tree_oid TEXT NOT NULL,
            command_digest TEXT NOT NULL,
            settings_digest TEXT NOT NULL,
            passed BIGINT NOT NULL,
            exit_code BIGINT,
            output TEXT,
            duration_ms BIGINT NOT NULL,
            task TEXT,
            attempt BIGINT,
            at BIGINT NOT NULL,
            PRIMARY KEY (project, tree_oid, command_digest, settings_digest))
        ;;
        CREATE TABLE {d}processes (
            project TEXT NOT NULL,
            token TEXT NOT NULL,
            task TEXT NOT NULL,
            attempt BIGINT NOT NULL,
            kind TEXT NOT NULL CHECK (kind IN ('agent', 'gate', 'setup')),
            executor_id TEXT NOT NULL,
            boot_id TEXT NOT NULL,
            pid_ns TEXT NOT NULL,
            pid BIGINT NOT NULL,
            start_ticks BIGINT NOT NULL,
            started_at BIGINT NOT NULL,
            ended_at BIGINT,
            PRIMARY KEY (project, token, kind))
        ;;
        CREATE INDEX ix_drover_processes_live ON {d}processes (project, ended_at)
        ;;
        CREATE TABLE {d}runs (
            project TEXT NOT NULL,
            id TEXT NOT NULL,
            workflow_id TEXT NOT NULL,
            epic TEXT,
            workers BIGINT NOT NULL,
            continue_on_failure BIGINT NOT NULL DEFAULT 0,
            max_attempts BIGINT NOT NULL,
            target TEXT NOT NULL,
            state TEXT NOT NULL CHECK (state IN ('active', 'ended')),
            generation BIGINT NOT NULL DEFAULT 1,
            executor_id TEXT,
            interrupts BIGINT NOT NULL DEFAULT 0,
            draining BIGINT NOT NULL DEFAULT 0,
            started_at BIGINT NOT NULL,
            ended_at BIGINT,
            outcome TEXT,
            PRIMARY KEY (project, id))
        ;;
        CREATE UNIQUE INDEX ix_drover_runs_active ON {d}runs (project) WHERE state = 'active'
        ;;
        CREATE TABLE {d}task_events (
            project TEXT NOT NULL,
            seq BIGINT NOT NULL,
            task TEXT,
            epic TEXT,
            run_id TEXT,
            type TEXT NOT NULL,
            at BIGINT NOT NULL,
            data TEXT NOT NULL DEFAULT '{}',
            PRIMARY KEY (project, seq))
        ;;
        CREATE INDEX ix_drover_events_task ON {d}task_events (project, task, seq)
        """;
}
